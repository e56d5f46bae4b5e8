//! Lists and deadlines do what slow ones do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::super::deadlines::Deadlines;
use super::super::lists::Lists;

const SLOTS: u32 = 24;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn lists_keep_their_order(steps in prop::collection::vec((0..SLOTS, 0_u8..128, any::<bool>()), 0..200)) {
        let mut lists = Lists::<2>::new();
        lists.make_room(SLOTS.try_into().unwrap());
        let mut model: BTreeMap<u8, VecDeque<u32>> = BTreeMap::new();
        for (slot, list, is_back) in steps {
            if model.values().any(|list| list.contains(&slot)) {
                lists.remove(slot);
                model.values_mut().for_each(|list| list.retain(|other| *other != slot));
            } else if is_back {
                lists.push_back(list % 4 * 40, slot);
                model.entry(list % 4 * 40).or_default().push_back(slot);
            } else {
                lists.push_front(list % 4 * 40, slot);
                model.entry(list % 4 * 40).or_default().push_front(slot);
            }
            for list in [0, 40, 80, 120] {
                let slots = core::iter::successors(lists.first(list), |slot| lists.behind(*slot));
                let expected = model.get(&list).cloned().unwrap_or_default();
                prop_assert!(slots.eq(expected.iter().copied()));
                let is_occupied = lists.occupied(usize::from(list / 64)) >> (list % 64) & 1 != 0;
                prop_assert_eq!(is_occupied, !expected.is_empty());
            }
        }
    }

    #[test]
    fn deadlines_come_in_order(steps in prop::collection::vec((0..SLOTS, 0..100_u64, 0..3), 0..200)) {
        let mut deadlines = Deadlines::new();
        deadlines.make_room(SLOTS.try_into().unwrap());
        let mut model: BTreeSet<(u64, u32)> = BTreeSet::new();
        for (slot, at, what) in steps {
            let noted = model.iter().copied().find(|(_, other)| *other == slot);
            match (what, noted) {
                (0, None) => {
                    deadlines.insert(slot, at);
                    model.insert((at, slot));
                }
                (1, _) => {
                    deadlines.remove(slot);
                    model.retain(|(_, other)| *other != slot);
                }
                _ => {
                    let due = deadlines.next_due(at);
                    let earliest = model.first().map(|(earliest, _)| *earliest).filter(|earliest| *earliest <= at);
                    prop_assert_eq!(due.is_some(), earliest.is_some());
                    if let (Some(due), Some(earliest)) = (due, earliest) {
                        prop_assert!(model.remove(&(earliest, due)));
                    }
                }
            }
            prop_assert_eq!(deadlines.earliest(), model.first().map(|(earliest, _)| *earliest));
        }
    }
}

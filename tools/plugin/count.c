// QEMU TCG plugin: counts what a machine executes, per exception level, and why it went to EL2.
//
// Not a profiler of time: it counts instructions. Built without QEMU's headers: what is used of plugin API version 4
// (docs/devel/tcg-plugins.rst) is declared here. docs/bench.md has the options and what is printed.

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// --- the API --------------------------------------------------------------------------------------------------------

typedef struct { char *data; unsigned length; } Array;               // GArray and GByteArray begin so
typedef struct { void *handle; const char *name, *feature; } Register;
typedef struct { void *score; size_t offset; } Counter;
typedef struct { const char *target; int least, most; bool is_system; int cpus, most_cpus; } Machine;
typedef struct { int type; union { uint8_t u8; uint64_t u64[2]; } value; } Stored;
enum { NO_REGISTERS, READS_REGISTERS };
enum { ADD };
enum { STORES = 2 };

extern Array *g_byte_array_new(void);
extern Array *g_byte_array_set_size(Array *, unsigned);
extern void *qemu_plugin_scoreboard_new(size_t);
extern uint64_t qemu_plugin_u64_get(Counter, unsigned);
extern Array *qemu_plugin_get_registers(void);
extern int qemu_plugin_read_register(void *, Array *);
extern bool qemu_plugin_read_memory_vaddr(uint64_t, Array *, size_t);
extern void qemu_plugin_register_vcpu_init_cb(uint64_t, void (*)(uint64_t, unsigned));
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, void *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(void *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(void *, int, Counter, uint64_t);
extern void qemu_plugin_register_vcpu_mem_cb(void *, void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);
extern void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const void *);
extern uint64_t qemu_plugin_tb_vaddr(const void *);
extern void *qemu_plugin_tb_get_insn(const void *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const void *);
extern size_t qemu_plugin_insn_data(const void *, void *, size_t);
extern void *qemu_plugin_get_hwaddr(uint32_t, uint64_t);
extern bool qemu_plugin_hwaddr_is_io(const void *);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const void *);
extern Stored qemu_plugin_mem_get_value(uint32_t);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

// --- what is counted ------------------------------------------------------------------------------------------------

enum { CPUS = 8, LEVELS = 4, SECTIONS = 16, REASONS = 1 << 13, PLACES = 1 << 16, PAGES = 1 << 22, PAGE_LOG2 = 12 };
// HINT #112 + section: unallocated, so a no-op to every CPU.
enum { FIRST_MARK = 112 };

// Why an exception was taken to EL2; `vector` 0: this entry is free.
typedef struct { unsigned section, cpu, vector, class; uint64_t detail, count; } Reason;
// An instruction of EL2's and how often it was executed in each section.
typedef struct { uint64_t pc, count[SECTIONS]; } Place;

static struct { uint64_t entry, uart, first_page; const char *until, *out; bool profiles, pages; } option =
    { .entry = ~0ull, .uart = 0x09000000, .first_page = 0x40000000 >> PAGE_LOG2 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
// With one CPU QEMU adds up inline. With several, 10.0 computes a wrong address for that under -icount (it multiplies a
// shared constant: the second add of a block goes astray), and each instruction calls here instead.
static Counter executed[LEVELS];
static uint64_t called[CPUS][LEVELS];
static unsigned cpus;
static uint64_t seen[CPUS][LEVELS], counts[SECTIONS][CPUS][LEVELS];
static struct { uint64_t pc, x0, count; Array *tree; } entry; // of the guest
static unsigned section;
static Reason reasons[REASONS];
static Place places[PLACES];
static uint8_t pages[PAGES]; // bit 0: EL2 stored there; bit 1: stage 2 gives it to a VM
static const char *const wanted[] = { "cpsr", "VBAR_EL2", "ESR_EL2", "FAR_EL2", "HPFAR_EL2", "VTTBR_EL2", "VTCR_EL2" };
enum { CPSR, VBAR, ESR, FAR, HPFAR, VTTBR, VTCR, X0, REGISTERS = X0 + 31 };
static void *registers[REGISTERS];

static uint64_t read_register(unsigned which) {
    static __thread Array *bytes;
    uint64_t value = 0;
    if (!bytes) bytes = g_byte_array_new();
    g_byte_array_set_size(bytes, 0);
    int size = registers[which] ? qemu_plugin_read_register(registers[which], bytes) : 0;
    if (which == CPSR && size < 4) { fputs("count: this QEMU does not let a plugin read CPSR\n", stderr); abort(); }
    memcpy(&value, bytes->data, size > 8 ? 8 : size > 0 ? size : 0);
    return value;
}

static uint64_t read_word(uint64_t address) {
    static __thread Array *bytes;
    uint64_t value = 0;
    if (!bytes) bytes = g_byte_array_new();
    g_byte_array_set_size(bytes, 0);
    if (qemu_plugin_read_memory_vaddr(address, bytes, 8)) memcpy(&value, bytes->data, 8);
    return value;
}

// Keeps how the guest was started: its first instruction, and the device tree that X0 points to.
static void keep_entry(uint64_t pc, uint64_t count) {
    entry.pc = pc, entry.count = count, entry.x0 = read_register(X0);
    uint64_t head = read_word(entry.x0); // magic and size, big endian
    if ((uint32_t)head != __builtin_bswap32(0xd00dfeed)) return;
    entry.tree = g_byte_array_new();
    if (!qemu_plugin_read_memory_vaddr(entry.x0, entry.tree, __builtin_bswap32(head >> 32))) entry.tree->length = 0;
}

static uint64_t executed_by(unsigned cpu, unsigned level) {
    return cpus == 1 ? qemu_plugin_u64_get(executed[level], cpu) : called[cpu][level];
}

// Books what was executed since the last mark to its section.
static void close_section(void) {
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        for (int level = 0; level < LEVELS; level++) {
            uint64_t now = executed_by(cpu, level);
            counts[section][cpu][level] += now - seen[cpu][level];
            seen[cpu][level] = now;
        }
}

static uint64_t total(void) {
    uint64_t sum = 0;
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        for (int level = 0; level < LEVELS; level++) sum += executed_by(cpu, level);
    return sum;
}

// Marks what a stage 2 table with 4 KiB granule maps. EL2's own map must be the identity, and EL2 must be executing.
static void walk(uint64_t table, unsigned level, unsigned entries) {
    for (unsigned i = 0; i < entries; i++) {
        uint64_t descriptor = read_word(table + 8 * i), address = descriptor & 0xfffffffff000;
        if (!(descriptor & 1)) continue;
        if (level < 3 && descriptor & 2) { walk(address, level + 1, 512); continue; }
        for (uint64_t n = 0; n < 1ull << 9 * (3 - level); n++) {
            uint64_t page = (address >> PAGE_LOG2) + n - option.first_page;
            if (page < PAGES) pages[page] |= 2;
        }
    }
}

static void walk_stage2(void) {
    uint64_t vtcr = read_register(VTCR);
    unsigned level = 2 - (vtcr >> 6 & 3), input_bits = 64 - (vtcr & 63), resolved = 39 - 9 * level;
    walk(read_register(VTTBR) & 0xfffffffffffe, level, 1u << (input_bits - resolved));
}

// --- what is printed ------------------------------------------------------------------------------------------------

static void report(void) {
    FILE *file = option.out ? fopen(option.out, "w") : stderr;
    if (!file) { perror(option.out); return; }
    close_section();
    for (int s = 0; s < SECTIONS; s++)
        for (int cpu = 0; cpu < CPUS; cpu++)
            for (int level = 0; level < LEVELS; level++)
                if (counts[s][cpu][level])
                    fprintf(file, "{\"kind\":\"instructions\",\"section\":%d,\"cpu\":%d,\"el\":%d,\"count\":%" PRIu64
                            "}\n", s, cpu, level, counts[s][cpu][level]);
    if (entry.count) {
        fprintf(file, "{\"kind\":\"entry\",\"pc\":%" PRIu64 ",\"x0\":%" PRIu64 ",\"count\":%" PRIu64 ",\"tree\":\"",
                entry.pc, entry.x0, entry.count);
        for (unsigned i = 0; entry.tree && i < entry.tree->length; i++)
            fprintf(file, "%02x", entry.tree->data[i] & 255);
        fprintf(file, "\"}\n");
    }
    for (Reason *r = reasons; r < reasons + REASONS; r++)
        if (r->vector)
            fprintf(file, "{\"kind\":\"exit\",\"section\":%u,\"cpu\":%u,\"vector\":%u,\"class\":%u,\"detail\":%" PRIu64
                    ",\"count\":%" PRIu64 "}\n", r->section, r->cpu, r->vector, r->class, r->detail, r->count);
    for (Place *p = places; p < places + PLACES; p++)
        for (int s = 0; s < SECTIONS; s++)
            if (p->count[s])
                fprintf(file, "{\"kind\":\"place\",\"section\":%d,\"pc\":%" PRIu64 ",\"count\":%" PRIu64 "}\n",
                        s, p->pc, p->count[s]);
    for (unsigned first = 0, page; option.pages && first < PAGES; first = page + 1) {
        for (page = first; page < PAGES && pages[page] == pages[first]; page++) {}
        page--;
        if (pages[first] & 1)
            fprintf(file, "{\"kind\":\"stored\",\"first\":%" PRIu64 ",\"pages\":%u,\"vm\":%d}\n",
                    (first + option.first_page) << PAGE_LOG2, page - first + 1, pages[first] >> 1);
    }
    fprintf(file, "{\"kind\":\"end\"}\n");
    if (file != stderr) fclose(file);
}

static void at_exit(uint64_t id, void *unused) { (void)id, (void)unused; report(); }

// --- what happens while the machine runs ----------------------------------------------------------------------------

static void at_mark(unsigned cpu, void *number) {
    (void)cpu;
    pthread_mutex_lock(&lock);
    close_section();
    section = (uintptr_t)number;
    pthread_mutex_unlock(&lock);
}

static void at_instruction(unsigned cpu, void *level) { called[cpu][(uintptr_t)level]++; }

static void at_place(unsigned cpu, void *place) { (void)cpu; ((Place *)place)->count[section]++; }

static void at_vector(unsigned cpu, void *vector) {
    unsigned number = (uintptr_t)vector, class = 0;
    uint64_t detail = 0;
    if (number % 4 == 0) { // synchronous
        uint64_t esr = read_register(ESR);
        class = esr >> 26 & 63;
        if (class == 0x18) detail = esr & 0x1fffc1f; // without Rt
        if (class == 0x16 || class == 0x17) detail = read_register(X0) & 0xffffffff;
        if (class == 0x24 || class == 0x20) // IPA, and bit 63 for a store
            detail = (read_register(HPFAR) & 0xfffffffff0) << 8 | (read_register(FAR) & 0xfff) | (esr >> 6 & 1) << 63;
    }
    pthread_mutex_lock(&lock);
    static bool walked;
    if (option.pages && !walked) { walked = true; walk_stage2(); }
    Reason wants = { section, cpu, number, class, detail, 0 };
    uint64_t slot = (detail ^ detail >> 16 ^ class << 6 ^ number << 3 ^ section << 9 ^ cpu) * 0x9e3779b97f4a7c15;
    for (unsigned tries = 0; tries < REASONS; tries++) {
        Reason *r = &reasons[((slot >> 48) + tries) & (REASONS - 1)];
        if (!r->vector) *r = wants;
        wants.count = r->count;
        if (!memcmp(r, &wants, sizeof wants)) { r->count++; break; }
    }
    pthread_mutex_unlock(&lock);
}

static void at_store(unsigned cpu, uint32_t info, uint64_t address, void *level) {
    static size_t matched;
    (void)cpu;
    if (!level && (address ^ option.uart) & 0xfff) return; // of the guest only the console is watched
    void *where = qemu_plugin_get_hwaddr(info, address);
    if (!where) return;
    uint64_t physical = qemu_plugin_hwaddr_phys_addr(where);
    if (!qemu_plugin_hwaddr_is_io(where)) {
        uint64_t page = (physical >> PAGE_LOG2) - option.first_page;
        if (level && page < PAGES) pages[page] |= 1;
    } else if (option.until && physical == option.uart) {
        char byte = qemu_plugin_mem_get_value(info).value.u8;
        matched = byte == option.until[matched] ? matched + 1 : byte == option.until[0];
        if (!option.until[matched]) {
            if (level && option.pages) walk_stage2();
            report();
            _exit(0);
        }
    }
}

static void at_zeroing(unsigned cpu, void *source) {
    (void)cpu;
    uint64_t page = (read_register((uintptr_t)source) >> PAGE_LOG2) - option.first_page;
    if (page < PAGES) pages[page] |= 1;
}

static Place *place(uint64_t pc) {
    for (unsigned slot = pc >> 2, tries = 0; tries < PLACES; slot++, tries++) {
        Place *p = &places[slot & (PLACES - 1)];
        if (!p->pc) p->pc = pc;
        if (p->pc == pc) return p;
    }
    abort();
}

// Calls back whenever the instruction is executed.
static void on_execution(void *instruction, void (*call)(unsigned, void *), int registers_too, uintptr_t argument) {
    qemu_plugin_register_vcpu_insn_exec_cb(instruction, call, registers_too, (void *)argument);
}

static void watch(void *instruction, unsigned level, uint64_t pc) {
    uint32_t word = 0;
    qemu_plugin_insn_data(instruction, &word, 4);
    bool is_hint = (word & 0xfffff01f) == 0xd503201f, is_zva = (word & 0xffffffe0) == 0xd50b7420;
    unsigned hint = word >> 5 & 127, rt = word & 31;

    if (cpus == 1) qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD, executed[level], 1);
    else on_execution(instruction, at_instruction, NO_REGISTERS, level);
    if (is_hint && hint >= FIRST_MARK) on_execution(instruction, at_mark, NO_REGISTERS, hint - FIRST_MARK);
    if (option.profiles && level == 2) on_execution(instruction, at_place, NO_REGISTERS, (uintptr_t)place(pc));
    if (option.pages && level == 2 && is_zva && rt < 31) // no store to QEMU
        on_execution(instruction, at_zeroing, READS_REGISTERS, X0 + rt);
    if (option.until || (option.pages && level == 2))
        qemu_plugin_register_vcpu_mem_cb(instruction, at_store, NO_REGISTERS, STORES, (void *)(uintptr_t)(level == 2));
}

// A block is translated for one exception level: that of the CPU now.
static void at_translation(uint64_t id, void *block) {
    (void)id;
    unsigned level = read_register(CPSR) >> 2 & 3;
    uint64_t start = qemu_plugin_tb_vaddr(block), offset = start - read_register(VBAR);
    if (level < 2 && !entry.count && (start == option.entry || option.entry == ~0ull)) keep_entry(start, total());
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        void *instruction = qemu_plugin_tb_get_insn(block, i);
        watch(instruction, level, qemu_plugin_insn_vaddr(instruction));
        if (i == 0 && level == 2 && offset >= 0x400 && offset < 0x800 && offset % 0x80 == 0) // from a lower level
            on_execution(instruction, at_vector, READS_REGISTERS, offset / 0x80);
    }
}

static void at_init(uint64_t id, unsigned cpu) {
    (void)id;
    if (cpu) return; // the handles are the same for all CPUs of a machine
    Array *list = qemu_plugin_get_registers();
    for (unsigned n = 0; n < list->length; n++) {
        Register *r = &((Register *)list->data)[n];
        for (unsigned which = 0; which < X0; which++)
            if (!strcmp(r->name, wanted[which])) registers[which] = r->handle;
        if (r->name[0] == 'x' && r->name[1] >= '0' && r->name[1] <= '9') registers[X0 + atoi(r->name + 1)] = r->handle;
    }
}

__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const Machine *machine, int count, char **arguments) {
    cpus = machine->most_cpus;
    if (cpus > CPUS) { fprintf(stderr, "count: more than %d CPUs\n", CPUS); return -1; }
    for (int n = 0; n < count; n++) {
        char *value = strchr(arguments[n], '=');
        if (!value) { fprintf(stderr, "count: %s: not NAME=VALUE\n", arguments[n]); return -1; }
        *value++ = 0;
        if (!strcmp(arguments[n], "entry")) option.entry = strtoull(value, 0, 0);
        else if (!strcmp(arguments[n], "uart")) option.uart = strtoull(value, 0, 0);
        else if (!strcmp(arguments[n], "until")) option.until = value;
        else if (!strcmp(arguments[n], "out")) option.out = value;
        else if (!strcmp(arguments[n], "profile")) option.profiles = *value == 'o' && value[1] == 'n';
        else if (!strcmp(arguments[n], "pages")) option.pages = *value == 'o' && value[1] == 'n';
        else { fprintf(stderr, "count: %s: no such option\n", arguments[n]); return -1; }
    }
    void *score = qemu_plugin_scoreboard_new(LEVELS * sizeof(uint64_t));
    for (int level = 0; level < LEVELS; level++) executed[level] = (Counter){ score, level * sizeof(uint64_t) };
    qemu_plugin_register_vcpu_init_cb(id, at_init);
    qemu_plugin_register_vcpu_tb_trans_cb(id, at_translation);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}

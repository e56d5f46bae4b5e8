//! Room 2: who owns what? Frames, stage 2, VMIDs; every change of resources happens here.
//!
//! Not here: what an instruction would have done (the interpreter's).

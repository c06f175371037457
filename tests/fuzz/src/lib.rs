//! What must hold of anything that is sent to spotsim: one module a target. cargo-fuzz looks
//! for inputs of which it does not hold; `tests/corpus.rs` replays those of `corpus/`.
//!
//! `cargo +nightly fuzz run TARGET` in `tests/` goes on looking.

pub mod control;
pub mod plans;
pub mod requests;
pub mod selectors;
pub mod templates;

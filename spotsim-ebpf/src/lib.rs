//! The compiled kernel half, for the user half to load.
//!
//! The programs are in `main.rs`; the build script compiles them for BPF and this library
//! carries the object file.

#![cfg_attr(target_arch = "bpf", no_std)]

/// ELF object with the four programs and their maps.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = {
    /// ELF headers are read in place, so the bytes must be aligned like them.
    #[repr(C, align(16))]
    struct Aligned<Bytes: ?Sized>(Bytes);

    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
        env!("OUT_DIR"),
        "/spotsim-programs"
    )));
    &ALIGNED.0
};

//! The compiled kernel half, for the user half to load.
//!
//! The programs are in `main.rs`, `cut.rs` and `empty.rs`; the build script compiles them for BPF
//! and this library carries the object files.

#![cfg_attr(target_arch = "bpf", no_std)]

/// An object file that cargo made, as ELF is read: in place, so aligned like its headers.
#[cfg(not(target_arch = "bpf"))]
macro_rules! object {
    ($name:literal) => {{
        #[repr(C, align(16))]
        struct Aligned<Bytes: ?Sized>(Bytes);

        static ALIGNED: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name)));
        &ALIGNED.0
    }};
}

/// ELF object with the four programs and their maps.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = object!("spotsim-programs");

/// ELF object with the two programs that cut a cgroup's network.
#[cfg(not(target_arch = "bpf"))]
pub static CUT: &[u8] = object!("spotsim-cut");

/// ELF object with a program that does nothing, for the benchmark.
#[cfg(not(target_arch = "bpf"))]
pub static EMPTY: &[u8] = object!("spotsim-empty");

//! Cuts a cgroup's network.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result, anyhow};
use aya::{Ebpf, EbpfLoader, programs::CgroupSkb};

use super::link::{AttachError, CUT, Links};

/// The two loaded programs, which every target that is cut shares.
///
/// What they drop is each packet that a socket of the cgroup, or of one beneath it, sends or would
/// receive, over loopback too. A socket belongs to the cgroup that its process was in when it
/// was made ([Documentation/bpf/prog_cgroup_skb][1], `__cgroup_bpf_run_filter_skb` in
/// kernel/bpf/cgroup.c). What the kernel answers by itself, to a ping or at a closed port, and
/// raw packets of `AF_PACKET` pass.
///
/// [1]: https://docs.ebpf.io/linux/program-type/BPF_PROG_TYPE_CGROUP_SKB/
pub struct Cut(Ebpf);

impl Cut {
    /// Loads them.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .load(spotsim_ebpf::CUT)
            .context("cannot load the programs that cut a network")?;
        for (name, _) in CUT {
            let program = ebpf
                .program_mut(name)
                .ok_or_else(|| anyhow!("the kernel half has no program {name}"))?;
            let program: &mut CgroupSkb = program.try_into()?;
            program
                .load()
                .with_context(|| format!("the kernel refused the program {name}"))?;
        }
        Ok(Self(ebpf))
    }

    /// Cuts the cgroup v2 directory `cgroup`, until the links are dropped.
    pub fn attach(&self, cgroup: impl AsFd) -> Result<Links, AttachError> {
        let Self(ebpf) = self;
        Links::attach(ebpf, cgroup.as_fd(), &CUT)
    }
}

//! The kernel half from the user's side: load it, tell it where the listeners are, attach it,
//! and read what it reports. The only place that names aya.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::CgroupSockAddr,
};
use aya_log::EbpfLogger;
use log::{debug, warn};
use spotsim_common::{decide::Ports, names, record::ConnectRecord};

use crate::readiness::readable;

mod cut;
mod link;
mod probe;

pub use cut::Cut;
pub use link::{AttachError, Links};
pub use probe::{Probe, probe};

/// One loaded set of programs with its maps; every target of an interception shares it.
pub struct Programs {
    ebpf: Ebpf,
    listeners: HashMap<MapData, u64, u32>,
}

impl Programs {
    /// Loads the kernel half. With `kernel_log` the programs say what they do through aya-log;
    /// without, the verifier removes that code.
    ///
    /// # Errors
    ///
    /// What the kernel answered, with the verifier's last words where it refused a program.
    pub fn load(kernel_log: bool) -> Result<Self> {
        let level = if kernel_log { u8::MAX } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .override_global(aya_log::LEVEL, &level, true)
            .load(spotsim_ebpf::OBJECT)
            .context("cannot load the kernel half")?;
        for (name, _) in link::ATTACHMENTS {
            program(&mut ebpf, name)?
                .load()
                .with_context(|| format!("the kernel refused the program {name}"))?;
        }
        if kernel_log {
            forward_log(&mut ebpf);
        }
        let listeners = HashMap::try_from(take_map(&mut ebpf, names::LISTENERS)?)?;
        Ok(Self { ebpf, listeners })
    }

    /// Sends the namespace's connections to `ports`, from the next one on.
    pub fn listen(&mut self, netns_cookie: u64, ports: Ports) -> Result<()> {
        let Self { listeners, .. } = self;
        listeners
            .insert(netns_cookie, ports.to_bits(), 0)
            .context("cannot tell the kernel half of a listener")
    }

    /// Lets the namespace's connections pass, from the next one on.
    pub fn forget(&mut self, netns_cookie: u64) {
        let Self { listeners, .. } = self;
        if let Err(error) = listeners.remove(&netns_cookie) {
            debug!("no listener to forget for network namespace cookie {netns_cookie}: {error}");
        }
    }

    /// Attaches all four programs to the cgroup v2 directory `cgroup`.
    pub fn attach(&self, cgroup: impl AsFd) -> Result<Links, AttachError> {
        let Self { ebpf, .. } = self;
        Links::attach(ebpf, cgroup.as_fd(), &link::ATTACHMENTS)
    }

    /// The reports of the kernel half. They can be taken once.
    pub fn take_connects(&mut self) -> Result<Connects> {
        let Self { ebpf, .. } = self;
        Ok(Connects {
            ring: RingBuf::try_from(take_map(ebpf, names::CONNECTS)?)?,
            lost: PerCpuArray::try_from(take_map(ebpf, names::LOST)?)?,
        })
    }
}

/// The stream of [`ConnectRecord`]s. Readable (as a file descriptor) while there are any.
pub struct Connects {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
}

impl Iterator for Connects {
    type Item = ConnectRecord;

    /// The next record that the kernel half has left; `None` does not mean that there will be
    /// no other.
    fn next(&mut self) -> Option<ConnectRecord> {
        let Self { ring, .. } = self;
        loop {
            let item = ring.next()?;
            match bytemuck::try_pod_read_unaligned(&item) {
                Ok(record) => return Some(record),
                Err(error) => warn!("a connect record of {} bytes: {error}", item.len()),
            }
        }
    }
}

impl Connects {
    /// How many records were lost so far because nobody read the ring buffer in time.
    pub fn lost(&self) -> u64 {
        let Self { lost, .. } = self;
        lost.get(&0, 0)
            .map_or(0, |per_cpu| per_cpu.iter().copied().sum())
    }
}

impl AsFd for Connects {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Self { ring, .. } = self;
        ring.as_fd()
    }
}

fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name)
        .ok_or_else(|| anyhow!("the kernel half has no map {name}"))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| anyhow!("the kernel half has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Passes the programs' own log on to ours. It is for debugging them, so that its absence is
/// never an error.
fn forward_log(ebpf: &mut Ebpf) {
    let logger = EbpfLogger::init(ebpf)
        .map_err(|error| error.to_string())
        .and_then(|logger| readable(logger).map_err(|error| error.to_string()));
    let mut logger = match logger {
        Ok(logger) => logger,
        Err(error) => return warn!("no log from the kernel half: {error}"),
    };
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}

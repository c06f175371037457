//! What spotsim could leave on a machine: kernel objects, and files.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// Kernel objects by kind (`link_id`, `prog_id`, `map_id`, as `/proc/PID/fdinfo` has them) and id.
/// The kernel gives no id twice for a long time.
pub type BpfObjects = BTreeSet<(String, u32)>;

/// The kernel objects that a process holds, as its descriptors show them; none if there is no
/// such process.
pub fn bpf_objects(pid: u32) -> BpfObjects {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let entries = entries.into_iter().flatten().flatten();
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let mut objects = BTreeSet::new();
    for info in infos {
        for line in info.lines() {
            if let Some((kind @ ("link_id" | "prog_id" | "map_id"), id)) = line.split_once(':') {
                objects.insert((kind.to_owned(), id.trim().parse().unwrap()));
            }
        }
    }
    objects
}

/// The kernel objects that the machine has, by the kernel's own lists.
pub fn all_bpf_objects() -> BpfObjects {
    // One may go while it is looked at.
    let links = loaded_links().flatten().map(|link| ("link_id", link.id()));
    let programs = loaded_programs()
        .flatten()
        .map(|program| ("prog_id", program.id()));
    let maps = loaded_maps().flatten().map(|map| ("map_id", map.id()));
    let all = links.chain(programs).chain(maps);
    all.map(|(kind, id)| (kind.to_owned(), id)).collect()
}

/// Files that spotsim might have made: what is in `/run` and in the BPF filesystem, where it
/// would pin things, and what bears its name among the temporary files.
pub fn files() -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = entries("/run".as_ref()).into_iter().collect();
    files.extend(entries("/run/spotsim".as_ref()));
    let temporary = entries(&env::temp_dir()).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Tests have directories there, others' tests too.
        name.contains("spotsim") && !name.starts_with("spotsim-tests-")
    });
    files.extend(temporary);
    let mut open = entries("/sys/fs/bpf".as_ref());
    while let Some(path) = open.pop() {
        open.extend(entries(&path));
        files.insert(path);
    }
    files
}

/// What is in a directory; nothing if it is none.
pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

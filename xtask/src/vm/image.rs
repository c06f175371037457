//! The initial root of a guest: init, the tests, and what they need of this system.

use std::{
    collections::BTreeSet,
    env, fs,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{cpio, kernel::Unpacked, programs::Programs};
use crate::{shell, workspace};

/// Programs of this system that the tests start, with the Debian packages that have them.
const NEEDED: [(&str, &str); 24] = [
    ("awk", "mawk"),
    ("bash", "bash"),
    ("cat", "coreutils"),
    ("curl", "curl"),
    ("cut", "coreutils"),
    ("env", "coreutils"),
    ("grep", "grep"),
    ("id", "coreutils"),
    ("ip", "iproute2"),
    ("ls", "coreutils"),
    ("mkdir", "coreutils"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("printf", "coreutils"),
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("sh", "dash"),
    ("sleep", "coreutils"),
    ("timeout", "coreutils"),
    ("true", "coreutils"),
    ("umount", "mount"),
    ("unshare", "util-linux"),
    ("wc", "coreutils"),
];

/// Where `init` mounts something, or tests expect a directory.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "root", "run", "sys", "tmp"];

/// The users that tests know, and the name of loopback.
const FILES: [(&str, &str); 3] = [
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    ),
];

/// Writes the image for a kernel. `plan` is what `init` will do.
pub fn write(to: &Path, kernel: &Unpacked, programs: &Programs, plan: &str) -> Result<()> {
    let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut image = cpio::Writer::new(BufWriter::new(file));
    for directory in DIRECTORIES {
        image.directory(directory)?;
    }
    let mut add = |path: String, from: &Path| {
        let content =
            fs::read(from).with_context(|| format!("cannot read {}", workspace::display(from)))?;
        image.file(&path, &content)?;
        anyhow::Ok(())
    };
    let Programs {
        init,
        spotsim,
        tests,
        helpers,
    } = programs;
    let mut executables = vec![init.clone(), spotsim.clone()];
    add("init".to_owned(), init)?;
    add("bin/spotsim".to_owned(), spotsim)?;
    // As cargo has them: a test program is one directory below what it starts.
    for (directory, programs) in [("tests", helpers), ("tests/deps", tests)] {
        for (name, path) in programs {
            add(format!("{directory}/{name}"), path)?;
            executables.push(path.clone());
        }
    }
    for (name, package) in NEEDED {
        let path = find(name)
            .with_context(|| format!("needs {name} (Debian: apt-get install {package})"))?;
        add(format!("bin/{name}"), &path)?;
        executables.push(path);
    }
    for library in libraries(&executables)? {
        add(library.clone(), Path::new(&library))?;
    }
    for (index, module) in kernel.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().display();
        add(format!("modules/{index}-{name}"), module)?;
    }
    for (path, content) in FILES {
        image.file(path, content.as_bytes())?;
    }
    image.file("plan", plan.as_bytes())?;
    Ok(image.finish()?)
}

/// A program on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The shared libraries of programs, and the loader.
fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<String>> {
    let shown = shell::read(Command::new("ldd").args(programs))?;
    Ok(shown
        .lines()
        .filter_map(library)
        .map(str::to_owned)
        .collect())
}

/// The file in a line of ldd's: `NAME => FILE (ADDRESS)`, for the loader `FILE (ADDRESS)`. What
/// the kernel provides has none, nor what is linked statically.
fn library(line: &str) -> Option<&str> {
    let (found, _address) = line.strip_prefix('\t')?.split_once(" (0x")?;
    let file = found.rsplit_once(" => ").map_or(found, |(_, file)| file);
    file.starts_with('/').then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_ldd_shows() {
        let shown = "/usr/bin/sh:\n\
            \tlinux-vdso.so.1 (0x00007fff8d1f2000)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2a8c000000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2a8c3d1000)\n\
            /tests/pod:\n\
            \tstatically linked\n\
            \tlibgone.so => not found\n";
        let files: Vec<_> = shown.lines().filter_map(library).collect();
        assert_eq!(
            files,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }

    #[test]
    fn a_program_and_its_libraries() {
        let sh = find("sh").unwrap();
        let libraries = libraries(&[sh]).unwrap();
        assert!(
            libraries.iter().any(|path| path.contains("/libc.so")),
            "{libraries:?}"
        );
        assert!(
            libraries.iter().any(|path| path.contains("/ld-linux")),
            "{libraries:?}"
        );
        assert_eq!(find("no-such-program-of-spotsim"), None);
    }
}

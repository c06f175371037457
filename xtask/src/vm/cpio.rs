//! A cpio archive as the kernel unpacks it into its first root directory: the "newc" format
//! ([Documentation/driver-api/early-userspace/buffer-format.rst][1]).
//!
//! [1]: https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// Writes an archive, one entry after the other. All of it is root's.
pub struct Writer<W> {
    to: W,
    /// The directories that are in it.
    directories: BTreeSet<String>,
    entries: u32,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self {
            to,
            directories: BTreeSet::new(),
            entries: 0,
        }
    }

    /// An empty directory, and those above it that are missing.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.above(path)?;
        self.entry(path, DIRECTORY, &[])
    }

    /// An executable file, and the directories above it that are missing.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        self.above(path)?;
        self.entry(path, FILE, content)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()
    }

    fn above(&mut self, path: &str) -> io::Result<()> {
        let above = Path::new(path).parent().and_then(Path::to_str);
        above.map_or(Ok(()), |above| self.directory(above))
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::other(format!("{path} is too long for a cpio archive"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
        self.entries += 1;
        // Inode, mode, uid, gid, links, mtime, size, four device numbers, name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        let mut head = "070701".to_owned();
        head.extend(fields.iter().map(|field| format!("{field:08x}")));
        head += path;
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    /// Every part begins at a multiple of four bytes.
    fn padded(&mut self, part: &[u8]) -> io::Result<()> {
        self.to.write_all(part)?;
        let padding = part.len().next_multiple_of(4) - part.len();
        self.to.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The archive's bytes, with zeros shown as dots.
    fn written(write: impl FnOnce(&mut Writer<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        write(&mut writer).unwrap();
        writer.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        String::from_utf8(bytes).unwrap().replace('\0', ".")
    }

    /// The head of an entry.
    fn head(inode: u32, mode: &str, size: u32, name_size: u32) -> String {
        let none = "00000000";
        let owner = none.repeat(2);
        let devices = none.repeat(4);
        format!(
            "070701{inode:08x}{mode}{owner}00000001{none}{size:08x}{devices}{name_size:08x}{none}"
        )
    }

    #[test]
    fn each_entry_is_padded_and_the_directories_above_it_come_first() {
        let archive = written(|writer| writer.file("/bin/sh", b"hello"));
        let expected = [
            head(1, "000041ed", 0, 4) + "bin...",
            head(2, "000081ed", 5, 7) + "bin/sh....hello...",
            head(3, "00000000", 0, 11) + "TRAILER!!!....",
        ];
        assert_eq!(archive, expected.concat());
    }

    #[test]
    fn a_directory_is_in_it_once() {
        let archive = written(|writer| {
            writer.directory("/a/b")?;
            writer.directory("a/b")?;
            writer.file("a/b/c", b"")?;
            writer.directory("/")
        });
        let entries = archive.split("070701").skip(1);
        let name = |entry: &str| entry[104..].trim_matches('.').to_owned();
        let names: Vec<_> = entries.map(name).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "TRAILER!!!"]);
    }
}

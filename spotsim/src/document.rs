//! Files that a user writes: TOML, YAML or JSON, by their extension.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;
use toml::de::{DeTable, DeValue};

/// The most bytes of a file. What people write has a hundredth of them.
pub const LONGEST: usize = 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    Yaml,
    Json,
}

impl Format {
    /// The format that the extension of `path` names.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("toml") => Ok(Self::Toml),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("json") => Ok(Self::Json),
            _ => Err(anyhow!(
                "cannot tell the format of {}: its name must end in .toml, .yaml, .yml or .json",
                shown(path)
            )),
        }
    }
}

/// The name of a file, in one line.
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// A text without what a terminal would act on or not show.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\'' | '"' | '\\' => printable.push(letter),
            _ => printable.extend(letter.escape_debug()),
        }
    }
    printable
}

/// What is wrong with a text, in one line, and where. Lines and columns count from 1; a column
/// is a character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Line and column.
    pub at: Option<(u64, u64)>,
    pub why: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, why } = self;
        if let Some((line, column)) = at {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(why)
    }
}

impl std::error::Error for Invalid {}

/// Reads a file by its extension. An error begins with `FILE:LINE:COLUMN`, where there is such
/// a place.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let format = Format::of(path)?;
    parse(&text(path)?, format).map_err(|invalid| invalid.in_file(path))
}

/// What is in a file, which cannot be too long.
pub fn text(path: &Path) -> Result<String> {
    let file = shown(path);
    let text = bytes(path).with_context(|| format!("cannot read {file}"))?;
    ensure!(
        text.len() <= LONGEST,
        "cannot read {file}: it is longer than {} KiB",
        LONGEST / 1024
    );
    String::from_utf8(text).with_context(|| format!("cannot read {file}"))
}

/// What is in a file, but no more than shows that it is too long.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = LONGEST as u64 + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a text. Whole numbers and booleans have one spelling each: of `0x1F`, which may be meant
/// as a text, serde passes on nothing but the number.
pub fn parse<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, Invalid> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Toml => toml(text),
        Format::Yaml => {
            let value = yaml(text)?;
            check_yaml(text, &yaml(text)?)?;
            Ok(value)
        }
        Format::Json => Ok(serde_json::from_str(text)?),
    }
}

fn toml<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    let invalid = |error: toml::de::Error| {
        let at = error.span().map(|span| place(text, span.start));
        Invalid::new(at, error.message())
    };
    let table = DeTable::parse(text).map_err(invalid)?;
    let value = T::deserialize(toml::Deserializer::from(table.clone())).map_err(invalid)?;
    check_toml(text, table.span(), &DeValue::Table(table.into_inner()))?;
    Ok(value)
}

fn check_toml(text: &str, span: Range<usize>, value: &DeValue<'_>) -> Result<(), Invalid> {
    match value {
        DeValue::Integer(_) => check_spelling(text, span),
        DeValue::Array(values) => values
            .iter()
            .try_for_each(|value| check_toml(text, value.span(), value.get_ref())),
        DeValue::Table(values) => values
            .values()
            .try_for_each(|value| check_toml(text, value.span(), value.get_ref())),
        _ => Ok(()),
    }
}

/// A value of a YAML file, as far as its spelling counts.
enum Word {
    /// A whole number or a boolean.
    Spelt,
    Other,
    Several(Vec<Spanned<Word>>),
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Word, E> {
                Ok(Word::Spelt)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Word, E> {
                Ok(Word::Spelt)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Word, E> {
                Ok(Word::Spelt)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Word, E> {
                Ok(Word::Other)
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Word, E> {
                Ok(Word::Other)
            }

            fn visit_unit<E: Error>(self) -> Result<Word, E> {
                Ok(Word::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Word, A::Error> {
                let mut several = Vec::new();
                while let Some(value) = values.next_element()? {
                    several.push(value);
                }
                Ok(Word::Several(several))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Word, A::Error> {
                let mut several = Vec::new();
                while let Some((IgnoredAny, value)) = map.next_entry()? {
                    several.push(value);
                }
                Ok(Word::Several(several))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

fn check_yaml(text: &str, word: &Spanned<Word>) -> Result<(), Invalid> {
    match &word.value {
        Word::Other => Ok(()),
        Word::Several(words) => words.iter().try_for_each(|word| check_yaml(text, word)),
        Word::Spelt => {
            // Of an alias, what it stands for.
            let span = word.defined.span();
            let start = span.byte_offset().unwrap_or_default() as usize;
            let length = span.byte_len().unwrap_or_default() as usize;
            check_spelling(text, start..start + length)
        }
    }
}

/// Whether a whole number or a boolean is spelt as serde's value is shown.
fn check_spelling(text: &str, span: Range<usize>) -> Result<(), Invalid> {
    let start = span.start;
    let spelling = text.get(span).unwrap_or_default().trim();
    let number = spelling.parse::<i128>();
    let is_plain = number.is_ok_and(|number| number.to_string() == spelling);
    if is_plain || matches!(spelling, "true" | "false") {
        return Ok(());
    }
    let why = format!("write {spelling} in quotes, or plainly: its spelling would be lost");
    Err(Invalid::new(Some(place(text, start)), &why))
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    // YAML 1.2 alone: neither is `no` a boolean, nor has an account `012345678901` a value
    // besides its spelling.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
    };
    Ok(serde_saphyr::from_str_with_options(text, options)?)
}

impl From<serde_json::Error> for Invalid {
    fn from(error: serde_json::Error) -> Self {
        let at = (error.line() as u64, error.column().max(1) as u64);
        Self::new((at.0 > 0).then_some(at), &error.to_string())
    }
}

impl From<serde_saphyr::Error> for Invalid {
    fn from(error: serde_saphyr::Error) -> Self {
        let at = error.location().map(|at| (at.line(), at.column()));
        let why = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        Self::new(at, &why)
    }
}

impl Invalid {
    /// With the file that it is in.
    pub fn in_file(&self, path: &Path) -> anyhow::Error {
        let file = shown(path);
        match self.at {
            Some(_) => anyhow!("{file}:{self}"),
            None => anyhow!("{file}: {self}"),
        }
    }

    /// `why` may have any number of lines, and end with the place once more.
    fn new(at: Option<(u64, u64)>, why: &str) -> Self {
        let why = match why.rsplit_once(" at line ") {
            Some((why, _)) if at.is_some() => why,
            _ => why,
        };
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            at,
            why: printable(&why),
        }
    }
}

/// Line and column of a byte.
fn place(text: &str, byte: usize) -> (u64, u64) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    (line as u64, last.chars().count() as u64 + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        name: String,
        count: Option<u8>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Inner,
    }

    /// A file in the directory for temporary ones.
    struct Written(std::path::PathBuf);

    impl Written {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("spotsim-document-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let Self(path) = self;
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn all_formats_say_the_same() {
        let expected = Outer {
            inner: Inner {
                name: "x".to_owned(),
                count: Some(1),
            },
        };
        for (name, text) in [
            ("a.toml", "[inner]\nname = 'x'\ncount = 1\n"),
            ("a.yaml", "inner:\n  name: x\n  count: 1\n"),
            ("a.YML", "inner: {name: x, count: 1}"),
            ("a.json", r#"{"inner": {"name": "x", "count": 1}}"#),
        ] {
            let Written(path) = &Written::new(name, text);
            assert_eq!(read::<Outer>(path).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn an_error_is_one_line_that_says_where() {
        use Format::{Json, Toml, Yaml};
        for (format, text, expected) in [
            (
                Yaml,
                "inner:\n  name: x\n  nmae: y\n",
                "3:3: unknown field `nmae`",
            ),
            (
                Yaml,
                "inner:\n  name: x\n  count: many\n",
                "3:10: invalid u8",
            ),
            (Yaml, "inner:\n  name: [x]\n", "2:9: "),
            (Yaml, "inner:\n  name: x\n  name: y\n", "3:3: duplicate"),
            (Yaml, "inner:\n  name: x\n more: y\n", "3:2: "),
            (Yaml, "inner:\n  count: 1\n", "2:3: missing field `name`"),
            (Yaml, "inner: {name: !x y}\n", "1:18: "),
            (Yaml, "inner: {name: x}\n---\ninner: {name: y}\n", "3:1: "),
            (Yaml, "", "1:1: "),
            (
                Toml,
                "[inner]\nname = 'x'\nnmae = 'y'\n",
                "3:1: unknown field `nmae`",
            ),
            (
                Toml,
                "[inner]\nname = 'x'\ncount = 'many'\n",
                "3:9: invalid type",
            ),
            (
                Toml,
                "[inner]\nname = 'x'\nname = 'y'\n",
                "3:1: duplicate key",
            ),
            (
                Toml,
                "inner = { name = 'ä', nmae = 1 }",
                "1:23: unknown field",
            ),
            (Toml, "[inner\n", "1:7: unclosed table"),
            (
                Json,
                "{\"inner\": {\n  \"nmae\": 1}}",
                "2:8: unknown field `nmae`",
            ),
            (Json, "{\"inner\": {\n  \"name\": 1}}", "2:11: invalid type"),
            (Json, "{", "1:1: EOF"),
            (Json, "", "1:1: EOF"),
        ] {
            let error = parse::<Outer>(text, format).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
            assert!(!error.contains(" at line "), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let Written(path) = &Written::new("typo.yaml", "inner:\n  nmae: x\n");
        let error = format!("{:#}", read::<Outer>(path).unwrap_err());
        let place = format!("{}:2:3: unknown field", path.display());
        assert!(error.starts_with(&place), "{error}");

        let missing = Path::new("/nowhere/plan.yaml");
        let error = format!("{:#}", read::<Outer>(missing).unwrap_err());
        assert!(
            error.starts_with("cannot read /nowhere/plan.yaml: "),
            "{error}"
        );
    }

    #[test]
    fn an_error_shows_nothing_that_a_terminal_acts_on() {
        use Format::{Json, Toml, Yaml};
        for (format, text) in [
            (Json, "{\"\\u001b[31mü\\u0007\": 1}"),
            (Toml, "\"\\u001b[31mü\\u0007\" = 1"),
            (Yaml, "\"\\e[31mü\\a\": 1"),
        ] {
            let error = parse::<Outer>(text, format).unwrap_err().to_string();
            let expected = "unknown field `\\u{1b}[31mü\\u{7}`";
            assert!(error.contains(expected), "{format:?}: {error}");
        }
        let path = "/nowhere/\u{1b}[31m\nplan's \u{202e}.yaml";
        for path in [path.to_owned(), path.replace("yaml", "txt")] {
            let error = format!("{:#}", read::<Outer>(Path::new(&path)).unwrap_err());
            let expected = r"/nowhere/\u{1b}[31m\nplan's \u{202e}.";
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        for (name, text) in [
            ("bom.toml", "inner = {name = 'x', nmae = 1}"),
            ("bom.yaml", "inner: {name: 'x', nmae: 1}"),
            ("bom.json", "{\"inner\": {\"name\": \"x\", \"nmae\": 1}}"),
        ] {
            let place = |text: &str| {
                let Written(path) = &Written::new(name, text);
                let error = format!("{:#}", read::<Outer>(path).unwrap_err());
                assert!(error.contains("unknown field `nmae`"), "{error}");
                error
            };
            assert_eq!(place(&format!("\u{feff}{text}")), place(text));
        }
    }

    #[test]
    fn a_file_has_an_end() {
        let text = format!("inner: {{name: x}}\n#{}", "ü".repeat(LONGEST / 2));
        let Written(path) = &Written::new("long.yaml", &text);
        let error = format!("{:#}", read::<Outer>(path).unwrap_err());
        assert!(error.ends_with(": it is longer than 1024 KiB"), "{error}");
        fs::write(path, text.replace('ü', "u")).unwrap();
        read::<Outer>(path).unwrap();
        let Written(path) = &Written::new("endless.json", "");
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        let error = format!("{:#}", read::<Outer>(path).unwrap_err());
        assert!(error.ends_with(": it is longer than 1024 KiB"), "{error}");
    }

    #[test]
    fn an_alias_is_spelt_as_what_it_stands_for() {
        let counts = |count: &str| {
            let text = format!("[{{name: x, count: &c {count}}}, {{name: y, count: *c}}]");
            parse::<Vec<Inner>>(&text, Format::Yaml)
        };
        assert_eq!(counts("7").unwrap()[1].count, Some(7));
        let error = counts("0x7").unwrap_err().to_string();
        assert!(error.starts_with("1:22: write 0x7 in quotes"), "{error}");
    }

    #[test]
    fn a_name_without_a_known_extension_is_refused() {
        for name in ["plan", "plan.txt", ".yaml", "plan.yaml~"] {
            let error = Format::of(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains("must end in"), "{name}: {error}");
        }
    }

    #[test]
    fn yaml_words_and_spellings_stay_what_they_are() {
        let values: Vec<serde_json::Value> =
            parse("[no, on, 012345678901, 1_000, true, 7]", Format::Yaml).unwrap();
        let expected = serde_json::json!(["no", "on", "012345678901", "1_000", true, 7]);
        assert_eq!(serde_json::Value::from(values), expected);
    }
}

//! Unit files: the original's grammar, the serial form and the hash.
//!
//! The grammar differs from systemd's in details (comments, quotes, continuations), and the
//! hash depends on each of them, so they are kept as they are. Two deliberate differences:
//! *every* line longer than [`MAX_LINE_BYTES`] is refused (the original's check depended on
//! where a line stood in its buffer), and so is text that is not UTF-8.

use std::fmt;

use crate::hash::UnitHash;

/// The longest accepted line in bytes, its line break not counted. The original's limit.
pub const MAX_LINE_BYTES: usize = 2047;

/// The largest accepted unit file in bytes. A unit's text travels as JSON in a transaction, of
/// which etcd accepts 1.5 MiB; the worst text becomes six times as long as JSON.
pub const MAX_FILE_BYTES: usize = 240 * 1024;

/// The section whose options make the agent enable a unit.
pub const INSTALL_SECTION: &str = "Install";

/// One `Name=Value` line of a unit file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnitOption {
    /// The section, without brackets.
    pub section: String,
    /// What stands before the first `=`.
    pub name: String,
    /// What follows it. Contains line breaks where the line was continued.
    pub value: String,
}

impl UnitOption {
    /// An option from its three parts.
    pub fn new(
        section: impl Into<String>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> UnitOption {
        UnitOption {
            section: section.into(),
            name: name.into(),
            value: value.into(),
        }
    }
}

/// The options of a unit file, in order. Comments and formatting are not kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct UnitFile {
    options: Vec<UnitOption>,
}

/// Why a text is not a unit file, and in which line (the first is 1).
///
/// It displays as the original's message and ` (line N)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (line {line})")]
pub struct ParseError {
    /// The line where the fault stands; for what is never ended, where it begins.
    pub line: usize,
    /// What is wrong.
    pub kind: ParseErrorKind,
}

impl ParseError {
    /// The original's message, without the line.
    pub fn message(&self) -> String {
        self.kind.to_string()
    }
}

/// What is wrong with a unit file. The messages are the original's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// The text ends within a section's name.
    #[error("unable to find end of section")]
    UnendedSection,
    /// Something follows a section's `]` on its line.
    #[error("found garbage after section name : {}", bytes(garbage))]
    GarbageAfterSection {
        /// What follows, shown as decimal byte values like the original does.
        garbage: Vec<u8>,
    },
    /// A line of an option without `=`.
    #[error("unexpected newline encountered while parsing option name")]
    NewlineInName,
    /// The text ends within an option's name.
    #[error("EOF")]
    EndInName,
    /// The line is longer than [`MAX_LINE_BYTES`].
    #[error("line too long (max 2048 bytes)")]
    LineTooLong,
    /// The text is larger than [`MAX_FILE_BYTES`].
    #[error("unit file too large (max {MAX_FILE_BYTES} bytes)")]
    FileTooLarge,
    /// The text is not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
}

impl UnitFile {
    /// Reads a unit file in one pass over `text`.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<UnitFile, ParseError> {
        parse_bytes(text.as_ref())
    }

    /// A unit file of these options, taken as they are. See [`UnitFile::normalized`].
    pub fn from_options(options: Vec<UnitOption>) -> UnitFile {
        UnitFile { options }
    }

    /// What readers of the serial form get: values trimmed, sections grouped. Stored files
    /// are normalized, so that their hash is the same for whoever computes it again.
    /// The error is that of the serial form, if it is not a unit file.
    pub fn normalized(&self) -> Result<UnitFile, ParseError> {
        // The first reading may trim what followed a backslash at a value's end, and so make it
        // a continuation. The second one takes it as that, and then nothing is left to change:
        // no value ends in a backslash, nor in anything else that is trimmed.
        let mut file = parse_bytes(self.to_text().as_bytes())?;
        if file.options.iter().any(|o| o.value.ends_with('\\')) {
            file = parse_bytes(file.to_text().as_bytes())?;
        }
        Ok(UnitFile {
            options: file.grouped(),
        })
    }

    /// The options in order.
    pub fn options(&self) -> &[UnitOption] {
        &self.options
    }

    /// The serial form: sections in the order in which they first appear, one blank line
    /// between them, no comments. The only form that is stored, compared and given to systemd.
    pub fn to_text(&self) -> String {
        let bytes = self
            .options
            .iter()
            .map(|o| o.name.len() + o.value.len() + o.section.len() + "[]\n\n=\n".len())
            .sum();
        let mut text = String::with_capacity(bytes);
        for section in self.sections() {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push('[');
            text.push_str(section.name);
            text.push_str("]\n");
            for option in section.options {
                text.push_str(&option.name);
                text.push('=');
                text.push_str(&option.value);
                text.push('\n');
            }
        }
        text
    }

    /// SHA-1 of the serial form.
    pub fn hash(&self) -> UnitHash {
        UnitHash::of(self.to_text().as_bytes())
    }

    /// The last value of an option: the one that counts for systemd where a list is not meant.
    pub fn value(&self, section: &str, name: &str) -> Option<&str> {
        self.values(section, name).next_back()
    }

    /// All values of an option, in order.
    pub fn values<'file>(
        &'file self,
        section: &str,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = &'file str> {
        self.options
            .iter()
            .filter(move |o| o.section == section && o.name == name)
            .map(|o| o.value.as_str())
    }

    /// The first `Description` of `[Unit]`, which is what the original lists.
    pub fn description(&self) -> Option<&str> {
        self.values("Unit", "Description").next()
    }

    /// Whether the section has at least one option.
    pub fn has_section(&self, section: &str) -> bool {
        self.options.iter().any(|o| o.section == section)
    }

    /// The options by section, both in order of (first) appearance.
    fn sections(&self) -> Vec<Section<'_>> {
        let mut index_of = std::collections::BTreeMap::new();
        let mut sections: Vec<Section<'_>> = Vec::new();
        for option in &self.options {
            let index = *index_of
                .entry(option.section.as_str())
                .or_insert(sections.len());
            if index == sections.len() {
                sections.push(Section {
                    name: &option.section,
                    options: Vec::new(),
                });
            }
            sections[index].options.push(option);
        }
        sections
    }

    /// The options in the order of the serial form.
    pub(crate) fn grouped(&self) -> Vec<UnitOption> {
        self.sections()
            .into_iter()
            .flat_map(|section| section.options)
            .cloned()
            .collect()
    }
}

impl fmt::Display for UnitFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

struct Section<'a> {
    name: &'a str,
    options: Vec<&'a UnitOption>,
}

fn parse_bytes(bytes: &[u8]) -> Result<UnitFile, ParseError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(ParseError {
            line: line_at(&bytes[..MAX_FILE_BYTES], MAX_FILE_BYTES),
            kind: ParseErrorKind::FileTooLarge,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| ParseError {
        line: line_at(bytes, e.valid_up_to()),
        kind: ParseErrorKind::InvalidUtf8,
    })?;
    if let Some(index) = text.split('\n').position(is_too_long) {
        return Err(ParseError {
            line: index + 1,
            kind: ParseErrorKind::LineTooLong,
        });
    }
    let mut reader = Reader {
        text,
        position: 0,
        options: Vec::new(),
    };
    reader.read()?;
    Ok(UnitFile {
        options: reader.options,
    })
}

fn is_too_long(line: &str) -> bool {
    line.strip_suffix('\r').unwrap_or(line).len() > MAX_LINE_BYTES
}

/// The number of the line in which byte `position` stands.
fn line_at(bytes: &[u8], position: usize) -> usize {
    1 + bytes[..position].iter().filter(|&&b| b == b'\n').count()
}

/// The state machine of the grammar. Each method consumes what it is named after; `position`
/// only grows, so reading takes time proportional to the text.
struct Reader<'a> {
    text: &'a str,
    position: usize,
    options: Vec<UnitOption>,
}

impl<'a> Reader<'a> {
    fn read(&mut self) -> Result<(), ParseError> {
        if !self.skip_to_first_section() {
            return Ok(());
        }
        let mut section = self.section_name()?;
        loop {
            self.skip_whitespace();
            match self.peek() {
                None => return Ok(()),
                Some('[') => section = self.section_name()?,
                Some('#' | ';') => self.comment(),
                Some(_) => {
                    let name = self.option_name()?;
                    let value = self.option_value();
                    self.options.push(UnitOption::new(section, name, value));
                }
            }
        }
    }

    /// Skips anything but comments up to a `[` *wherever it stands*; false: there is none.
    fn skip_to_first_section(&mut self) -> bool {
        loop {
            match self.rest().find(['[', '#', ';']) {
                None => return false,
                Some(offset) => self.position += offset,
            }
            if self.peek() == Some('[') {
                return true;
            }
            self.comment();
        }
    }

    /// A section's name in its brackets, which may contain line breaks.
    fn section_name(&mut self) -> Result<&'a str, ParseError> {
        let start = self.position;
        self.position += '['.len_utf8();
        let Some(length) = self.rest().find(']') else {
            return Err(self.error(start, ParseErrorKind::UnendedSection));
        };
        let name = &self.rest()[..length];
        self.position += length + ']'.len_utf8();
        let after = self.position;
        let garbage = self.line().text.trim();
        if !garbage.is_empty() {
            let garbage = garbage.as_bytes().to_vec();
            return Err(self.error(after, ParseErrorKind::GarbageAfterSection { garbage }));
        }
        Ok(name)
    }

    /// A comment, and the next line too where the comment ends in a backslash (one blank may
    /// follow it).
    fn comment(&mut self) {
        loop {
            let line = self.line().text;
            if !line.strip_suffix(' ').unwrap_or(line).ends_with('\\') {
                return;
            }
        }
    }

    fn option_name(&mut self) -> Result<&'a str, ParseError> {
        let start = self.position;
        let end = self.rest().find(['=', '\r', '\n']);
        let Some(length) = end else {
            return Err(self.error(start, ParseErrorKind::EndInName));
        };
        let name = &self.rest()[..length];
        self.position += length;
        if self.peek() != Some('=') {
            return Err(self.error(start, ParseErrorKind::NewlineInName));
        }
        self.position += '='.len_utf8();
        Ok(name.trim())
    }

    /// Lines up to one that does not end in a backslash. A continuation that leads nowhere
    /// leaves one line break at the end of the value.
    fn option_value(&mut self) -> String {
        let start = self.position;
        let mut end = start;
        let mut is_continued = false;
        loop {
            let line = self.line();
            if line.text.trim().is_empty() {
                break;
            }
            end += line.text.len();
            is_continued = line.text.ends_with('\\') && line.is_ended;
            if !is_continued {
                break;
            }
            end += '\n'.len_utf8();
        }
        // All lines of a value follow each other in the text, joined by their own line breaks.
        let mut value = self.text[start..end].trim().to_owned();
        if is_continued {
            value.push('\n');
        }
        value
    }

    /// The rest of the line, without its line feed.
    fn line(&mut self) -> Line<'a> {
        let rest = self.rest();
        match rest.find('\n') {
            Some(length) => {
                self.position += length + '\n'.len_utf8();
                Line {
                    text: &rest[..length],
                    is_ended: true,
                }
            }
            None => {
                self.position = self.text.len();
                Line {
                    text: rest,
                    is_ended: false,
                }
            }
        }
    }

    fn skip_whitespace(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn error(&self, position: usize, kind: ParseErrorKind) -> ParseError {
        ParseError {
            line: line_at(self.text.as_bytes(), position),
            kind,
        }
    }
}

/// Bytes as Go prints them: decimal, separated by blanks.
fn bytes(bytes: &[u8]) -> String {
    let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", decimal.join(" "))
}

struct Line<'a> {
    text: &'a str,
    /// Whether a line feed ended it, not the end of the text.
    is_ended: bool,
}

#[cfg(test)]
mod tests;

//! What the arguments of a verb mean: unit names, patterns, and the files that belong to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fleet_core::glob::Glob;
use fleet_core::name::{UnitName, UnitType, with_default_type};

/// Most files that a pattern is compared with in its directory.
const MAX_DIRECTORY_ENTRIES: usize = 100_000;

/// One argument that names a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UnitArg {
    /// As typed, with the default type: what messages call its file.
    pub(crate) arg: String,
    /// The unit that is meant: the path's base name with the default type. Not checked.
    pub(crate) name: String,
}

impl UnitArg {
    pub(crate) fn new(arg: &str) -> UnitArg {
        let name = with_default_type(arg);
        let directory = directory(arg);
        UnitArg {
            arg: directory.join(&name).to_string_lossy().into_owned(),
            name,
        }
    }

    /// The local file of that name, which need not exist.
    pub(crate) fn file(&self) -> PathBuf {
        directory(&self.arg).join(&self.name)
    }

    /// The local file of the template that this is an instance of.
    pub(crate) fn template_file(&self) -> Option<PathBuf> {
        let template = self.template()?;
        Some(directory(&self.arg).join(template))
    }

    /// The template that this is an instance of.
    pub(crate) fn template(&self) -> Option<String> {
        let name = UnitName::parse(&self.name).ok()?;
        name.is_instance()
            .then(|| name.template())?
            .map(|t| t.to_string())
    }
}

/// Whether the argument is a pattern. A backslash alone makes none: names may have one.
pub(crate) fn is_pattern(arg: &str) -> bool {
    base(arg).contains(['*', '?', '['])
}

/// The globs that an argument stands for: as typed and, if it has no type, with `.service`.
pub(crate) fn globs(arg: &str) -> Vec<Glob> {
    let pattern = base(arg);
    let has_type = pattern
        .rsplit_once('.')
        .is_some_and(|(_, suffix)| UnitType::from_suffix(suffix).is_some());
    let mut globs = vec![Glob::new(pattern)];
    if !has_type {
        globs.push(Glob::new(&format!("{pattern}.service")));
    }
    globs
}

/// The unit files in the pattern's directory that match, in order of their names.
pub(crate) fn matching_files(arg: &str) -> Vec<UnitArg> {
    let directory = directory(arg);
    let globs = globs(arg);
    let Ok(entries) = std::fs::read_dir(if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &directory
    }) else {
        return Vec::new();
    };
    let names: BTreeSet<String> = entries
        .take(MAX_DIRECTORY_ENTRIES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| globs.iter().any(|glob| glob.matches(name)))
        .filter(|name| UnitName::parse(name).is_ok() && directory.join(name).is_file())
        .collect();
    let args = names.iter().map(|name| UnitArg {
        arg: directory.join(name).to_string_lossy().into_owned(),
        name: name.clone(),
    });
    args.collect()
}

/// Each name once, where it first stands; and those whose file is passed over for that, with the
/// argument that counts.
pub(crate) fn without_repetition(args: Vec<UnitArg>) -> (Vec<UnitArg>, Vec<(UnitArg, String)>) {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<UnitArg> = Vec::new();
    let mut passed_over = Vec::new();
    for arg in args {
        match first.get(&arg.name).and_then(|at| kept.get(*at)) {
            None => {
                first.insert(arg.name.clone(), kept.len());
                kept.push(arg);
            }
            Some(counts) if is_another_file(&counts.file(), &arg.file()) => {
                let counts = counts.arg.clone();
                passed_over.push((arg, counts));
            }
            Some(_) => {}
        }
    }
    (kept, passed_over)
}

/// The other one is a file, and not this one by another path.
fn is_another_file(this: &Path, other: &Path) -> bool {
    let other = other.canonicalize();
    other.is_ok_and(|other| this.canonicalize().ok() != Some(other))
}

fn base(arg: &str) -> &str {
    arg.rsplit_once('/').map_or(arg, |(_, base)| base)
}

fn directory(arg: &str) -> PathBuf {
    let arg = arg.trim_end_matches('/');
    match arg.rsplit_once('/') {
        Some(("", _)) => PathBuf::from("/"),
        Some((directory, _)) => PathBuf::from(directory),
        None => PathBuf::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_names_and_files() {
        for (arg, name, file) in [
            ("hello", "hello.service", "hello.service"),
            ("/a/b/hello", "hello.service", "/a/b/hello.service"),
            ("v2/hello.service", "hello.service", "v2/hello.service"),
            ("foo.bar", "foo.bar.service", "foo.bar.service"),
            ("q.target", "q.target", "q.target"),
            ("/x.timer", "x.timer", "/x.timer"),
        ] {
            let unit = UnitArg::new(arg);
            assert_eq!(unit.name, name);
            assert_eq!(unit.file(), Path::new(file));
            assert_eq!(unit.arg, file);
        }
    }

    #[test]
    fn only_instances_have_a_template_file() {
        let template = |arg| UnitArg::new(arg).template_file();
        assert_eq!(template("d/s@5"), Some("d/s@.service".into()));
        assert_eq!(template("d/s@"), None);
        assert_eq!(template("s"), None);
        assert_eq!(template("s@5.mount"), None);
    }

    #[test]
    fn patterns() {
        assert!(is_pattern("web-*") && is_pattern("a/s@[12].service") && is_pattern("a?"));
        assert!(!is_pattern("a\\x2d.service") && !is_pattern("di*r/web"));
        let matches = |arg: &str, name: &str| globs(arg).iter().any(|glob| glob.matches(name));
        assert!(matches("web-?", "web-1.service"));
        assert!(!matches("web-?", "web-1.timer"));
        assert!(matches("web-*", "web-1.timer"));
        assert!(!matches("web-*.service", "web-1.timer"));
    }

    #[test]
    fn files_that_match() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b.service", "a.service", "a.txt", "c.timer"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("d.service")).unwrap();
        let pattern = format!("{}/*", dir.path().display());
        let names: Vec<String> = matching_files(&pattern)
            .into_iter()
            .map(|arg| arg.name)
            .collect();
        assert_eq!(names, ["a.service", "b.service", "c.timer"]);
        let args = matching_files(&format!("{}/a*", dir.path().display()));
        assert_eq!(args[0].file(), dir.path().join("a.service"));
    }
}

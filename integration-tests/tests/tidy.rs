//! What no lint can hold: module docs, import directions, and that every law is written, kept and tested.
//!
//! Each test lists all violations of its rule, as `file:line: what is wrong`. Comments and literals are blanked out
//! before code is looked at, so that a rule may be named without being broken.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 5] =
    ["processor-core", "processor-runtime", "processor-simulator", "examples", "integration-tests"];
/// The one module with unsafe code: this file, and those below the directory of its name.
const FFI: &str = "processor-runtime/src/kafka/ffi.rs";
/// The one file of the tests with unsafe code: a signal's handler cannot be set otherwise.
const CRASH: &str = "integration-tests/src/crash.rs";
/// The allocator's configuration is found by its name.
const ALLOCATOR: &str = "processor-runtime/src/allocator.rs";
const LAWS: std::ops::RangeInclusive<u32> = 1..=12;

/// A module may name those above it and its own line. Every module has a place; a new one is put where it belongs.
const RUNTIME_LAYERS: [&[&str]; 12] = [
    &["allocator", "clock", "failpoints", "listed", "metrics", "secret", "seeded_bugs", "service_manager", "status"],
    &["kafka"],
    &["transaction"],
    &["state"],
    &["restore"],
    &["tasks"],
    &["stream_thread"],
    &["config", "settings", "topics", "preflight", "purge", "query"],
    &["app"],
    &["commands"],
    &["cli"],
    &["lib"],
];
const CORE_LAYERS: [&[&str]; 6] = [
    &["ids", "error", "record", "codec", "partition", "protocol"],
    &["store", "time"],
    &["operator"],
    &["topology"],
    &["task"],
    &["testing", "prelude", "lib"],
];
const SIMULATOR_LAYERS: [&[&str]; 8] = [
    &["fake", "random", "strike"],
    &["world"],
    &["workload"],
    &["stories"],
    &["schedule"],
    &["search", "reference"],
    &["simulation"],
    &["lib"],
];
const LAYERED: [(&str, &[&[&str]]); 3] = [
    ("processor-core/src", &CORE_LAYERS),
    ("processor-runtime/src", &RUNTIME_LAYERS),
    ("processor-simulator/src", &SIMULATOR_LAYERS),
];

/// Modules that see a fixed few others: crate, module, what it may name beside itself.
const NARROW_VIEWS: [(&str, &str, &[&str]); 2] = [
    ("processor-core", "protocol", &["ids", "error"]),
    ("processor-runtime", "query", &["clock", "metrics", "status", "state"]),
];

#[test]
fn every_file_says_first_what_it_is_for() {
    report(
        files()
            .iter()
            .filter(|file| !file.text.trim_start().starts_with("//!"))
            .map(|file| file.at(0, "begins without `//!`: say what the file is for and which rule it keeps")),
    );
}

#[test]
fn each_dependency_is_named_where_it_may_be() {
    let mut wrong = Vec::new();
    for file in files() {
        for (position, word) in file.words() {
            if let Some(why) = misplaced(&file, word) {
                wrong.push(file.at(position, &format!("names `{word}`: {why}")));
            }
        }
    }
    report(wrong);
}

fn misplaced(file: &File, word: &str) -> Option<&'static str> {
    let runtime_source = file.starts_with("processor-runtime/src");
    let kafka = ["rdkafka", "rdkafka_sys"].contains(&word);
    let rocksdb = ["rocksdb", "librocksdb_sys"].contains(&word);
    let may_be_unsafe = file.path == Path::new(FFI)
        || file.path.starts_with(Path::new(FFI).with_extension(""))
        || [CRASH, ALLOCATOR].into_iter().any(|path| file.path == Path::new(path));
    if word == "unsafe" && !may_be_unsafe {
        Some("only kafka/ffi.rs of processor-runtime, and the handler of crashes in the tests, are unsafe")
    } else if file.starts_with("processor-core") && (kafka || rocksdb || ["processor_runtime", "tokio"].contains(&word))
    {
        Some("core has no I/O and knows no runtime")
    } else if runtime_source && kafka && file.module() != "kafka" {
        Some("only kafka/ talks to Kafka")
    } else if runtime_source && rocksdb && file.module() != "state" {
        Some("only state/ talks to RocksDB")
    } else {
        None
    }
}

#[test]
fn modules_name_only_the_layers_below_them() {
    let mut wrong = Vec::new();
    for file in files() {
        for (position, named) in file.crate_paths() {
            if let Some(why) = against_the_direction(&file, named) {
                wrong.push(file.at(position, &why));
            }
        }
    }
    report(wrong);
}

fn against_the_direction(file: &File, named: &str) -> Option<String> {
    let own = file.module();
    let layers = file.layers()?;
    if named == "prelude" && file.is_test() {
        return None; // tests use what users use
    }
    let view = NARROW_VIEWS.iter().find(|(package, module, _)| file.starts_with(package) && *module == own);
    if let Some((_, _, seen)) = view {
        let blind = named != own && !seen.contains(&named);
        return blind.then(|| format!("`{own}` may see only {seen:?}, not `crate::{named}`"));
    }
    let rank = |module: &str| layers.iter().position(|layer| layer.contains(&module));
    let homeless = |module: &str| format!("`{module}` has no layer: give it one in this test and in ARCHITECTURE.md");
    match (rank(own), rank(named)) {
        (None, _) => Some(homeless(own)),
        (_, None) => Some(homeless(named)),
        (Some(own_rank), Some(rank)) => {
            (own_rank < rank).then(|| format!("`{own}` is below `{named}` and must not name it"))
        }
    }
}

#[test]
fn every_module_has_a_layer_and_every_layer_its_modules() {
    let files = files();
    let mut wrong = Vec::new();
    for (source, layers) in LAYERED {
        let found: BTreeSet<&str> = files.iter().filter(|file| file.starts_with(source)).map(File::module).collect();
        let listed: BTreeSet<&str> = layers.iter().copied().flatten().copied().collect();
        wrong.extend(found.difference(&listed).map(|module| format!("{source}/{module} has no layer in this test")));
        wrong.extend(
            listed.difference(&found).map(|module| format!("{source}/{module} has a layer and does not exist")),
        );
    }
    report(wrong);
}

#[test]
fn every_law_is_written_kept_and_tested() {
    let pages = ["ARCHITECTURE.md", "docs/guarantees.md"].map(|page| fs::read_to_string(root().join(page)));
    let pages = pages.into_iter().filter_map(Result::ok).collect::<String>();
    let files = files();
    let (source, tests): (Vec<&str>, Vec<&str>) = files.iter().map(File::source_and_tests).unzip();
    let mut wrong = Vec::new();
    for law in LAWS.map(|number| format!("EO-{number}")) {
        let mut missing = |place: &str| wrong.push(format!("{law} occurs in no {place}"));
        if !names_law(&pages, &law) {
            missing("page: write it in ARCHITECTURE.md or docs/guarantees.md");
        }
        if !source.iter().any(|text| names_law(text, &law)) {
            missing("source file of core or runtime: name it where the code keeps it");
        }
        if !tests.iter().any(|text| names_law(text, &law)) {
            missing("test: name it in the test that would fail without it");
        }
    }
    report(wrong);
}

fn names_law(text: &str, law: &str) -> bool {
    text.match_indices(law).any(|(at, _)| !text[at + law.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

#[test]
fn no_test_is_switched_off() {
    let off = |file: &File| file.find("#[ignore", "is never run: repair the test or remove it");
    report(files().iter().flat_map(off));
}

#[test]
fn tests_wait_for_a_condition_and_not_for_time() {
    let sleeps = |file: &File| file.find("sleep(", "waits for time: wait, bounded, for what has to happen");
    report(files().iter().filter(|file| file.starts_with("integration-tests/tests")).flat_map(sleeps));
}

fn report(violations: impl IntoIterator<Item = String>) {
    let violations: Vec<String> = violations.into_iter().collect();
    assert!(violations.is_empty(), "{} violation(s):\n{}", violations.len(), violations.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace").to_owned()
}

struct File {
    /// Relative to the workspace.
    path: PathBuf,
    text: String,
    /// `text` of the same length, with comments and literals blanked out.
    code: String,
}

fn files() -> Vec<File> {
    let mut paths = Vec::new();
    for name in CRATES {
        collect(&root().join(name), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > CRATES.len(), "the sources are not where this test looks for them");
    paths.iter().map(|path| File::read(path)).collect()
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display())) {
        let path = entry.expect("a listed directory can be read on").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

impl File {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let path = path.strip_prefix(root()).expect("sources lie in the workspace").to_owned();
        Self { path, code: code_only(&text), text }
    }

    fn starts_with(&self, prefix: &str) -> bool {
        self.path.starts_with(prefix)
    }

    /// The layers of the crate whose source this is, if it has any.
    fn layers(&self) -> Option<&'static [&'static [&'static str]]> {
        LAYERED.iter().find(|(source, _)| self.starts_with(source)).map(|(_, layers)| *layers)
    }

    /// The module below the crate's root: `state` for both `src/state.rs` and `src/state/apply.rs`.
    fn module(&self) -> &str {
        let below_source = self.path.iter().nth(2).and_then(|part| part.to_str()).unwrap_or_default();
        below_source.trim_end_matches(".rs")
    }

    fn at(&self, position: usize, what: &str) -> String {
        let line = self.code[..position].matches('\n').count() + 1;
        format!("{}:{line}: {what}", self.path.display())
    }

    fn find(&self, pattern: &str, what: &str) -> Vec<String> {
        self.code.match_indices(pattern).map(|(position, _)| self.at(position, what)).collect()
    }

    fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        words(&self.code)
    }

    fn crate_paths(&self) -> Vec<(usize, &str)> {
        crate_paths(&self.code)
    }

    /// Whether the file holds nothing but tests.
    fn is_test(&self) -> bool {
        self.path.iter().any(|part| part == "tests" || part == "tests.rs")
    }

    /// What ships, and what tests it: the end of a file from `#[cfg(test)]` on, whole files of tests, and the simulator.
    fn source_and_tests(&self) -> (&str, &str) {
        let this_file = self.path.ends_with("tests/tidy.rs");
        let all_tests = ["integration-tests", "processor-simulator"].iter().any(|tests| self.starts_with(tests));
        let all_tests = all_tests || self.is_test();
        match self.code.find("#[cfg(test)]") {
            _ if this_file => ("", ""),
            _ if all_tests => ("", &self.text),
            Some(start) => self.text.split_at(start),
            None => (&self.text, ""),
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let all = code.split(|character| !is_word(character)).filter(|word| !word.is_empty());
    all.map(|word| (word.as_ptr().addr() - code.as_ptr().addr(), word))
}

/// The first name after each `crate::`, and every first name in a `crate::{..}` group.
fn crate_paths(code: &str) -> Vec<(usize, &str)> {
    let starts = code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with(is_word));
    starts.flat_map(|(at, path)| first_names(code, at + path.len())).collect()
}

fn first_names(code: &str, start: usize) -> Vec<(usize, &str)> {
    let Some(group) = code[start..].strip_prefix('{') else {
        return words(&code[start..]).next().map(|(at, word)| (start + at, word)).into_iter().collect();
    };
    let (mut depth, mut expected, mut names) = (0, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            _ if expected && is_word(character) => {
                names.extend(words(&group[at..]).next().map(|(_, word)| (start + 1 + at, word)));
                expected = false;
            }
            _ => {}
        }
    }
    names
}

/// Overwrites comments, strings and characters with spaces; line ends and every byte position stay.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blank = blank_length(rest, code.chars().next_back().is_some_and(is_word));
        let taken = blank.unwrap_or(first.len_utf8());
        let (piece, after) = rest.split_at(taken);
        if blank.is_none() {
            code.push_str(piece);
        } else {
            code.extend(piece.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// How many bytes the comment or literal that starts here has.
fn blank_length(text: &str, inside_a_word: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_length(text));
    }
    if text.starts_with('"') {
        return Some(quoted_length(text, '"'));
    }
    if let Some(raw) = text.strip_prefix('r').filter(|_| !inside_a_word) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let end = format!("\"{}", &raw[..hashes]);
        let body = raw[hashes..].strip_prefix('"')?;
        return Some(1 + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()));
    }
    // A quote opens a character unless it is a lifetime, which has no closing quote two characters on.
    let mut after_quote = text.strip_prefix('\'')?.chars();
    let (first, second) = (after_quote.next()?, after_quote.next()?);
    (first == '\\' || second == '\'').then(|| quoted_length(text, '\''))
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let step = match rest {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth = depth.saturating_add_signed(step.0);
        at += step.1;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

mod the_reader_of_code {
    use super::*;

    #[test]
    fn blanks_comments_and_literals_and_nothing_else() {
        let text = "a // b\nc /* d /* e */ f */ g \"h\\\"i\" j r#\"k\"l\"# m 'n' '\\'' <'o> for r in p";
        let code = code_only(text);
        assert_eq!(code.len(), text.len());
        let names: Vec<&str> = words(&code).map(|(_, word)| word).collect();
        assert_eq!(names, ["a", "c", "g", "j", "m", "o", "for", "r", "in", "p"]);
    }

    #[test]
    fn finds_every_module_of_a_crate_path() {
        let code = "use crate::a::b; use crate::{c, d::{e, f}, g as h}; crate::i(j); other_crate::k();";
        let names: Vec<&str> = crate_paths(code).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "c", "d", "g", "i"]);
    }

    #[test]
    fn tells_a_law_from_one_with_a_longer_number() {
        assert!(names_law("as law X-1 says", "X-1"));
        assert!(!names_law("as law X-12 says", "X-1"));
    }

    #[test]
    fn sees_an_upward_import_and_a_misplaced_dependency() {
        let file = |path: &str| File { path: path.into(), text: String::new(), code: String::new() };
        let kafka = file("processor-runtime/src/kafka/mod.rs");
        assert!(against_the_direction(&kafka, "state").is_some());
        assert!(against_the_direction(&kafka, "config").is_some());
        assert!(against_the_direction(&kafka, "clock").is_none());
        assert!(against_the_direction(&kafka, "nowhere").is_some());
        assert!(against_the_direction(&file("processor-core/src/protocol/mod.rs"), "store").is_some());
        assert!(misplaced(&kafka, "rdkafka").is_none());
        assert!(misplaced(&kafka, "rocksdb").is_some());
        assert!(misplaced(&file("processor-core/src/lib.rs"), "tokio").is_some());
        assert!(misplaced(&file(FFI), "unsafe").is_none());
        assert!(misplaced(&file(CRASH), "unsafe").is_none());
        assert!(misplaced(&file("integration-tests/src/worker.rs"), "unsafe").is_some());
    }
}

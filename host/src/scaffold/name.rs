//! What a plugin, its package and its library can be called: one name serves all three.

use std::fmt;

use super::ScaffoldError;
use crate::plugins::Kind;

/// Longest name: lists stay readable, and no file system complains.
const MOST_BYTES: usize = 64;

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameProblem {
    /// It is not in kebab case.
    Form,
    /// It is longer than a name may be.
    TooLong,
    /// It is a word of the language, and a library's name is an identifier.
    Keyword,
    /// Another crate of the new plugin's build has it.
    OtherCrate,
    /// It means something else in settings.
    Section,
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(
                "a name has lower-case letters, digits and single dashes between them, and begins with a letter",
            ),
            Self::TooLong => write!(f, "a name has at most {MOST_BYTES} characters"),
            Self::Keyword => f.write_str("it is a word of the Rust language, and its library could not have it"),
            Self::OtherCrate => f.write_str("it is the name of a crate that plugins are built with"),
            Self::Section => f.write_str("`--set` and the configuration file use the word for something else"),
        }
    }
}

/// Words that cannot be identifiers in edition 2024. Source: The Rust Reference, "Keywords", strict and reserved.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while", "yield",
];

/// Crates that the new one would be taken for, or clash with: those that come with Rust, those that it depends on, and
/// `antiphon-core` and `antiphon-host`, which the derive macros look for by name.
const CRATES: [&str; 13] = [
    "alloc",
    "antiphon-core",
    "antiphon-derive",
    "antiphon-host",
    "antiphon-plugin-abi",
    "antiphon-plugin-api",
    "core",
    "proc-macro",
    "schemars",
    "serde",
    "std",
    "test",
    "tokio",
];

/// Sections of the configuration that are no plugin's.
const SECTIONS: [&str; 3] = ["agent", "plugin", "plugins"];

/// The name, if a new plugin can have it.
pub(super) fn checked(kind: Kind, name: &str) -> Result<&str, ScaffoldError> {
    match problem(name) {
        None => Ok(name),
        Some(problem) => {
            Err(ScaffoldError::Name { name: name.to_owned(), problem, suggestion: suggestion(kind, name) })
        }
    }
}

fn problem(name: &str) -> Option<NameProblem> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_kebab = name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split('-').all(is_part);
    match name {
        _ if !is_kebab => Some(NameProblem::Form),
        _ if name.len() > MOST_BYTES => Some(NameProblem::TooLong),
        _ if KEYWORDS.contains(&name) => Some(NameProblem::Keyword),
        _ if CRATES.contains(&name) => Some(NameProblem::OtherCrate),
        _ if SECTIONS.contains(&name) => Some(NameProblem::Section),
        _ => None,
    }
}

/// The nearest name that would do, with the kind in front, as in the names of most plugins.
fn suggestion(kind: Kind, name: &str) -> String {
    let lower = name.to_lowercase();
    let is_allowed = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let mut parts: Vec<&str> =
        lower.split(|character| !is_allowed(character)).filter(|part| !part.is_empty()).collect();
    if parts.first() != Some(&kind.as_str()) {
        parts.insert(0, kind.as_str());
    }
    if parts.len() == 1 {
        parts.push("mine");
    }
    let mut name = parts.join("-");
    name.truncate(MOST_BYTES);
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_crates_are_names_of_plugins() {
        for name in ["llm-parrot", "parrot", "a", "tts-2", "a1-b2-c3"] {
            assert_eq!(problem(name), None, "{name}");
        }
    }

    #[test]
    fn other_names_are_refused_with_what_is_wrong_and_what_would_do() {
        #[track_caller]
        fn check(name: &str, want: NameProblem, would_do: &str) {
            assert_eq!(problem(name), Some(want), "{name}");
            assert_eq!(suggestion(Kind::Llm, name), would_do);
            assert_eq!(problem(would_do), None, "{would_do}");
            let error = checked(Kind::Llm, name).expect_err("refused").to_string();
            assert!(error.contains(&format!("{name:?}")) && error.ends_with(would_do), "{error}");
        }
        check("", NameProblem::Form, "llm-mine");
        check("Parrot", NameProblem::Form, "llm-parrot");
        check("my_parrot", NameProblem::Form, "llm-my-parrot");
        check("2nd", NameProblem::Form, "llm-2nd");
        check("-a", NameProblem::Form, "llm-a");
        check("a-", NameProblem::Form, "llm-a");
        check("a--b", NameProblem::Form, "llm-a-b");
        check("../llm", NameProblem::Form, "llm-mine");
        check("äh", NameProblem::Form, "llm-h");
        check("match", NameProblem::Keyword, "llm-match");
        check("serde", NameProblem::OtherCrate, "llm-serde");
        check("antiphon-core", NameProblem::OtherCrate, "llm-antiphon-core");
        check("agent", NameProblem::Section, "llm-agent");
        check(&"a".repeat(65), NameProblem::TooLong, &format!("llm-{}", "a".repeat(60)));
    }
}

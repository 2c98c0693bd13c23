//! TOML to [`RuleBook`], and everything that can be wrong with it.
//!
//! Reads the parsed table by hand instead of deriving: an error names the line, the rule and the key, and proposes
//! the spelling that was meant.

use std::{collections::BTreeMap, ops::Range};

use regex::{Regex, RegexBuilder};
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Replies, Rule, RuleBook,
    template::{BraceError, TEXT, Template},
};

const MAX_BOOK_BYTES: usize = 1 << 20;

const MAX_RULES: usize = 1000;

/// Limit of one compiled pattern; `\w` repeated a thousand times exceeds it. Matching is linear in any case.
const MAX_PATTERN_BYTES: usize = 256 << 10;

const FALLBACK: &str = "Sorry, I did not understand \"{text}\".";

const BOOK_KEYS: &[&str] = &["fallback", "greeting", "rule"];

const RULE_KEYS: &[&str] = &["name", "pattern", "reply", "default"];

/// Something in a rule book that is not as it should be. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Larger than the reader takes.
    #[error("rule book has {bytes} bytes, at most {limit} are read")]
    TooBig {
        /// Size of the book.
        bytes: usize,
        /// Largest size.
        limit: usize,
    },
    /// More rules than the reader takes.
    #[error("line {line}: rule book has more than {limit} rules")]
    TooManyRules {
        /// Line of the first rule too many.
        line: usize,
        /// Largest number.
        limit: usize,
    },
    /// Not TOML.
    #[error("line {line}: not valid TOML: {message}")]
    Syntax {
        /// Where the TOML parser gave up.
        line: usize,
        /// What it found, in its words.
        message: String,
    },
    /// A key that means nothing here.
    #[error(
        "line {line}: unknown key \"{key}\" in {place}, expected {}{}",
        any_of(expected),
        meant(suggestion)
    )]
    UnknownKey {
        /// Line of the key.
        line: usize,
        /// The key.
        key: String,
        /// `the rule book` or the rule.
        place: String,
        /// Keys that exist here.
        expected: &'static [&'static str],
        /// The one among them that was probably meant.
        suggestion: Option<String>,
    },
    /// A key that must be there is not.
    #[error("line {line}: {place} has no \"{key}\"")]
    MissingKey {
        /// Line where the rule begins.
        line: usize,
        /// The rule.
        place: String,
        /// The key.
        key: &'static str,
    },
    /// A value of another type.
    #[error("line {line}: \"{key}\" of {place} is {found}, expected {expected}")]
    WrongType {
        /// Line of the value.
        line: usize,
        /// The key.
        key: String,
        /// `the rule book` or the rule.
        place: String,
        /// What may stand here.
        expected: &'static str,
        /// What stands here.
        found: &'static str,
    },
    /// A name, pattern or reply without content.
    #[error("line {line}: \"{key}\" of {place} is empty")]
    Empty {
        /// Line of the value.
        line: usize,
        /// The key.
        key: &'static str,
        /// `the rule book` or the rule.
        place: String,
    },
    /// Two rules with one name; it could not be told which one answered.
    #[error("line {line}: rule \"{name}\" exists already in line {first_line}")]
    DuplicateName {
        /// Line of the second name.
        line: usize,
        /// The name.
        name: String,
        /// Line of the first one.
        first_line: usize,
    },
    /// A pattern that does not compile, or compiles to too much.
    #[error("line {line}: pattern of {place} is not a usable regular expression")]
    Pattern {
        /// Line of the pattern.
        line: usize,
        /// The rule.
        place: String,
        /// Why, with the position in the pattern.
        #[source]
        source: regex::Error,
    },
    /// A capture called `text`, which is the name of the whole.
    #[error("line {line}: pattern of {place} has a capture \"text\", which stands for all that was said")]
    ReservedCapture {
        /// Line of the pattern.
        line: usize,
        /// The rule.
        place: String,
    },
    /// A brace that neither begins nor ends a placeholder.
    #[error("line {line}: \"{key}\" of {place} has {problem}; write \"{{{{\" or \"}}}}\" for a brace")]
    Braces {
        /// Line of the reply.
        line: usize,
        /// The key.
        key: &'static str,
        /// `the rule book` or the rule.
        place: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A placeholder that nothing can fill.
    #[error(
        "line {line}: \"{key}\" of {place} has an unknown placeholder \"{{{placeholder}}}\", expected {}{}",
        any_of(known),
        meant(suggestion)
    )]
    UnknownPlaceholder {
        /// Line of the reply.
        line: usize,
        /// The key.
        key: &'static str,
        /// `the rule book` or the rule.
        place: String,
        /// The placeholder, without braces.
        placeholder: String,
        /// Placeholders that would do.
        known: Vec<String>,
        /// The one among them that was probably meant.
        suggestion: Option<String>,
    },
    /// A default for a capture that the pattern does not have.
    #[error(
        "line {line}: {place} has a default for \"{capture}\", which is no capture of its pattern, expected {}{}",
        any_of(known),
        meant(suggestion)
    )]
    UnknownDefault {
        /// Line of the default.
        line: usize,
        /// The rule.
        place: String,
        /// The capture that does not exist.
        capture: String,
        /// Captures that do.
        known: Vec<String>,
        /// The one among them that was probably meant.
        suggestion: Option<String>,
    },
}

impl RulesError {
    /// Line that the error is about; none for a book that was not read at all.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::TooBig { .. } => None,
            Self::TooManyRules { line, .. }
            | Self::Syntax { line, .. }
            | Self::UnknownKey { line, .. }
            | Self::MissingKey { line, .. }
            | Self::WrongType { line, .. }
            | Self::Empty { line, .. }
            | Self::DuplicateName { line, .. }
            | Self::Pattern { line, .. }
            | Self::ReservedCapture { line, .. }
            | Self::Braces { line, .. }
            | Self::UnknownPlaceholder { line, .. }
            | Self::UnknownDefault { line, .. } => Some(*line),
        }
    }
}

pub(super) fn book(text: &str) -> Result<RuleBook, RulesError> {
    if text.len() > MAX_BOOK_BYTES {
        return Err(RulesError::TooBig { bytes: text.len(), limit: MAX_BOOK_BYTES });
    }
    let source = Source(text);
    let table = DeTable::parse(text).map_err(|error| RulesError::Syntax {
        line: error.span().map_or(1, |span| source.line(span)),
        message: error.message().to_owned(),
    })?;
    let book =
        Section { source, place: "the rule book".to_owned(), span: table.span(), table: table.get_ref() };
    book.refuse_unknown_keys(BOOK_KEYS)?;

    let greeting = book.text("greeting")?.map(|(greeting, _)| greeting.to_owned());
    let fallback = match book.replies("fallback", &[])? {
        Some(replies) => replies,
        None => Replies(vec![Template::parse(FALLBACK).expect("its braces are matched, see the constant")]),
    };

    let mut rules = Vec::new();
    let mut lines = BTreeMap::new();
    for (index, section) in book.sections("rule")?.into_iter().enumerate() {
        if index == MAX_RULES {
            return Err(RulesError::TooManyRules { line: source.line(section.span), limit: MAX_RULES });
        }
        let (rule, line) = rule(section)?;
        if let Some(first_line) = lines.insert(rule.name.clone(), line) {
            return Err(RulesError::DuplicateName { line, name: rule.name, first_line });
        }
        rules.push(rule);
    }
    Ok(RuleBook { greeting, fallback, rules })
}

/// One rule and the line of its name.
fn rule(mut section: Section<'_>) -> Result<(Rule, usize), RulesError> {
    section.refuse_unknown_keys(RULE_KEYS)?;
    let (name, line) = section.text("name")?.ok_or_else(|| section.missing("name"))?;
    section.place = format!("rule \"{name}\"");

    let (pattern, pattern_line) = section.text("pattern")?.ok_or_else(|| section.missing("pattern"))?;
    let pattern =
        RegexBuilder::new(pattern).case_insensitive(true).size_limit(MAX_PATTERN_BYTES).build().map_err(
            |source| RulesError::Pattern { line: pattern_line, place: section.place.clone(), source },
        )?;
    let captures = capture_names(&pattern);
    if captures.contains(&TEXT) {
        return Err(RulesError::ReservedCapture { line: pattern_line, place: section.place });
    }

    let replies = section.replies("reply", &captures)?.ok_or_else(|| section.missing("reply"))?;
    let default = section.defaults(&captures)?;
    Ok((Rule { name: name.to_owned(), pattern, replies, default }, line))
}

fn capture_names(pattern: &Regex) -> Vec<&str> {
    pattern.capture_names().flatten().collect()
}

/// The text of the book, to turn positions into lines.
#[derive(Clone, Copy)]
struct Source<'a>(&'a str);

impl Source<'_> {
    fn line(&self, span: Range<usize>) -> usize {
        let before = self.0.as_bytes().iter().take(span.start);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }
}

/// One table of the book, with what an error has to say about where it is.
struct Section<'a> {
    source: Source<'a>,
    place: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    fn refuse_unknown_keys(&self, expected: &'static [&'static str]) -> Result<(), RulesError> {
        let unknown = self.table.keys().filter(|key| !expected.contains(&&key.get_ref()[..]));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        Err(RulesError::UnknownKey {
            line: self.source.line(key.span()),
            key: key.get_ref().to_string(),
            place: self.place.clone(),
            expected,
            suggestion: closest(key.get_ref(), expected),
        })
    }

    /// The value of `key` and its line.
    fn value(&self, key: &str) -> Option<(&'a DeValue<'a>, usize)> {
        self.table.get(key).map(|value| (value.get_ref(), self.source.line(value.span())))
    }

    /// A text that is not blank.
    fn text(&self, key: &'static str) -> Result<Option<(&'a str, usize)>, RulesError> {
        let Some((value, line)) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| self.wrong_type(key, line, "a text", value))?;
        if text.trim().is_empty() {
            return Err(self.empty(key, line));
        }
        Ok(Some((text, line)))
    }

    /// One template or a list of them, that name nothing but `captures` and `text`.
    fn replies(&self, key: &'static str, captures: &[&str]) -> Result<Option<Replies>, RulesError> {
        const EXPECTED: &str = "a text or a list of texts";
        let Some((value, line)) = self.value(key) else { return Ok(None) };
        let texts = match value {
            DeValue::String(text) => vec![(&text[..], line)],
            DeValue::Array(list) => {
                let text = |item: &'a Spanned<DeValue<'a>>| {
                    let line = self.source.line(item.span());
                    let text = item.get_ref().as_str();
                    Ok((text.ok_or_else(|| self.wrong_type(key, line, EXPECTED, item.get_ref()))?, line))
                };
                list.iter().map(text).collect::<Result<_, _>>()?
            }
            other => return Err(self.wrong_type(key, line, EXPECTED, other)),
        };
        if texts.is_empty() {
            return Err(self.empty(key, line));
        }
        let template = |(text, line)| self.template(key, text, line, captures);
        Ok(Some(Replies(texts.into_iter().map(template).collect::<Result<_, _>>()?)))
    }

    fn template(
        &self,
        key: &'static str,
        text: &str,
        line: usize,
        captures: &[&str],
    ) -> Result<Template, RulesError> {
        if text.trim().is_empty() {
            return Err(self.empty(key, line));
        }
        let template = Template::parse(text).map_err(|error| RulesError::Braces {
            line,
            key,
            place: self.place.clone(),
            problem: match error {
                BraceError::Unclosed => "a \"{\" without its \"}\"",
                BraceError::Unopened => "a \"}\" without its \"{\"",
                BraceError::Empty => "a placeholder without a name",
            },
        })?;
        let known = || captures.iter().copied().chain([TEXT]);
        if let Some(placeholder) = template.placeholders().find(|name| !known().any(|known| known == *name)) {
            let known: Vec<&str> = known().collect();
            return Err(RulesError::UnknownPlaceholder {
                line,
                key,
                place: self.place.clone(),
                placeholder: placeholder.to_owned(),
                suggestion: closest(placeholder, &known),
                known: known.into_iter().map(str::to_owned).collect(),
            });
        }
        Ok(template)
    }

    fn defaults(&self, captures: &[&str]) -> Result<BTreeMap<String, String>, RulesError> {
        let Some((value, line)) = self.value("default") else { return Ok(BTreeMap::new()) };
        let table = value.as_table();
        let table = table.ok_or_else(|| self.wrong_type("default", line, "a table of texts", value))?;
        let mut defaults = BTreeMap::new();
        for (key, value) in table {
            let line = self.source.line(key.span());
            let capture = &key.get_ref()[..];
            if !captures.contains(&capture) {
                return Err(RulesError::UnknownDefault {
                    line,
                    place: self.place.clone(),
                    capture: capture.to_owned(),
                    known: captures.iter().copied().map(str::to_owned).collect(),
                    suggestion: closest(capture, captures),
                });
            }
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| self.wrong_type(capture, line, "a text", value.get_ref()))?;
            defaults.insert(capture.to_owned(), text.to_owned());
        }
        Ok(defaults)
    }

    /// The tables of an array of tables.
    fn sections(&self, key: &str) -> Result<Vec<Section<'a>>, RulesError> {
        const EXPECTED: &str = "tables that begin with \"[[rule]]\"";
        let Some((value, line)) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.wrong_type(key, line, EXPECTED, value))?;
        let section = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let line = self.source.line(item.span());
            let table = item.get_ref().as_table();
            let table = table.ok_or_else(|| self.wrong_type(key, line, EXPECTED, item.get_ref()))?;
            Ok(Section {
                source: self.source,
                place: format!("rule {}", index + 1),
                span: item.span(),
                table,
            })
        };
        list.iter().enumerate().map(section).collect()
    }

    fn missing(&self, key: &'static str) -> RulesError {
        RulesError::MissingKey { line: self.source.line(self.span.clone()), place: self.place.clone(), key }
    }

    fn empty(&self, key: &'static str, line: usize) -> RulesError {
        RulesError::Empty { line, key, place: self.place.clone() }
    }

    fn wrong_type(&self, key: &str, line: usize, expected: &'static str, found: &DeValue<'_>) -> RulesError {
        let found = match found {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        RulesError::WrongType { line, key: key.to_owned(), place: self.place.clone(), expected, found }
    }
}

/// The known word that `word` is a misspelling of.
fn closest(word: &str, known: &[&str]) -> Option<String> {
    let likeness = |known: &&&str| strsim::jaro_winkler(word, known);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    // 0.8 keeps "patern", "replies" and "names", and drops words that only share a letter.
    (likeness(&best) >= 0.8).then(|| (*best).to_owned())
}

fn any_of(words: &[impl AsRef<str>]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    words.iter().map(|word| format!("\"{}\"", word.as_ref())).collect::<Vec<_>>().join(", ")
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |word| format!(" (did you mean \"{word}\"?)"))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// Parses `text`, which must fail, and compares line and message.
    #[track_caller]
    fn check(text: &str, line: usize, want: &str) {
        let error = RuleBook::parse(text).expect_err("the book is wrong");
        assert_eq!(error.to_string(), format!("line {line}: {want}"), "{text}");
        assert_eq!(error.line(), Some(line));
    }

    /// A rule of four lines, with `extra` behind it.
    fn rule(pattern: &str, reply: &str, extra: &str) -> String {
        format!("[[rule]]\nname = \"move\"\npattern = '{pattern}'\nreply = {reply}\n{extra}")
    }

    #[test]
    fn broken_toml() {
        check("fallback = \"a\"\ngreeting = \"b", 2, "not valid TOML: invalid basic string, expected `\"`");
        check("a = 1\na = 2", 2, "not valid TOML: duplicate key");
        check("[[rule]]\nname = \"a\"\n[rule", 3, "not valid TOML: unclosed table, expected `]`");
    }

    #[test]
    fn unknown_keys_name_the_place_and_the_key_that_was_meant() {
        check(
            "\nfalback = \"x\"",
            2,
            "unknown key \"falback\" in the rule book, expected \"fallback\", \"greeting\", \"rule\" \
             (did you mean \"fallback\"?)",
        );
        check(
            "[[rules]]\nname = \"a\"",
            1,
            "unknown key \"rules\" in the rule book, expected \"fallback\", \"greeting\", \"rule\" \
             (did you mean \"rule\"?)",
        );
        check(
            "[[rule]]\nname = \"a\"\npattern = \"a\"\nreply = \"a\"\n\n[[rule]]\nname = \"b\"\npatern = \"b\"",
            8,
            "unknown key \"patern\" in rule 2, expected \"name\", \"pattern\", \"reply\", \"default\" \
             (did you mean \"pattern\"?)",
        );
        check(
            "[[rule]]\nxyz = 1",
            2,
            "unknown key \"xyz\" in rule 1, expected \"name\", \"pattern\", \"reply\", \"default\"",
        );
        // The first one in the file, not in the alphabet.
        check(
            "zeta = 1\nalpha = 2",
            1,
            "unknown key \"zeta\" in the rule book, expected \"fallback\", \"greeting\", \"rule\"",
        );
    }

    #[test]
    fn missing_keys() {
        check("# a book\n\n[[rule]]\npattern = \"a\"\nreply = \"a\"", 3, "rule 1 has no \"name\"");
        check("[[rule]]\nname = \"a\"\nreply = \"a\"", 1, "rule \"a\" has no \"pattern\"");
        check("[[rule]]\nname = \"a\"\npattern = \"a\"", 1, "rule \"a\" has no \"reply\"");
    }

    #[test]
    fn wrong_types() {
        check("greeting = 5", 1, "\"greeting\" of the rule book is a number, expected a text");
        check(
            "fallback = true",
            1,
            "\"fallback\" of the rule book is true or false, expected a text or a list of texts",
        );
        check(
            "rule = \"a\"",
            1,
            "\"rule\" of the rule book is a text, expected tables that begin with \"[[rule]]\"",
        );
        check(
            "[rule]\nname = \"a\"",
            1,
            "\"rule\" of the rule book is a table, expected tables that begin with \"[[rule]]\"",
        );
        check(
            "rule = [1]",
            1,
            "\"rule\" of the rule book is a number, expected tables that begin with \"[[rule]]\"",
        );
        check("[[rule]]\nname = [\"a\"]", 2, "\"name\" of rule 1 is a list, expected a text");
        check(
            &rule("a", "[\n\"a\",\n2024-01-01]", ""),
            6,
            "\"reply\" of rule \"move\" is a date, expected a text or a list of texts",
        );
        check(
            &rule("a", "\"a\"", "default = \"x\""),
            5,
            "\"default\" of rule \"move\" is a text, expected a table of texts",
        );
        check(
            &rule("(?<n>a)", "\"a\"", "[rule.default]\nn = 3"),
            6,
            "\"n\" of rule \"move\" is a number, expected a text",
        );
    }

    #[test]
    fn empty_values() {
        check("greeting = \" \"", 1, "\"greeting\" of the rule book is empty");
        check("fallback = []", 1, "\"fallback\" of the rule book is empty");
        check("[[rule]]\nname = \"\"", 2, "\"name\" of rule 1 is empty");
        check(&rule("", "\"a\"", ""), 3, "\"pattern\" of rule \"move\" is empty");
        check(&rule("a", "[\"a\", \"\"]", ""), 4, "\"reply\" of rule \"move\" is empty");
    }

    #[test]
    fn two_rules_with_one_name() {
        let text = format!("{}{}", rule("a", "\"a\"", ""), rule("b", "\"b\"", ""));
        check(&text, 6, "rule \"move\" exists already in line 2");
    }

    #[test]
    fn pattern_that_does_not_compile_has_the_reason_as_its_source() {
        let want = "pattern of rule \"move\" is not a usable regular expression";
        check(&rule("^(go", "\"a\"", ""), 3, want);
        let error = RuleBook::parse(&rule("^(go", "\"a\"", "")).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("unclosed group"));

        check(&rule(r"^(\w{100}){100}$", "\"a\"", ""), 3, want);
        let error = RuleBook::parse(&rule(r"^(\w{100}){100}$", "\"a\"", "")).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("exceeds size limit"));
    }

    #[test]
    fn capture_named_like_the_whole_text() {
        check(
            &rule("(?<text>a)", "\"{text}\"", ""),
            3,
            "pattern of rule \"move\" has a capture \"text\", which stands for all that was said",
        );
    }

    #[test]
    fn lone_braces() {
        let advice = "write \"{{\" or \"}}\" for a brace";
        check(
            &rule("a", "\"{a\"", ""),
            4,
            &format!("\"reply\" of rule \"move\" has a \"{{\" without its \"}}\"; {advice}"),
        );
        check(
            &rule("a", "\"a}\"", ""),
            4,
            &format!("\"reply\" of rule \"move\" has a \"}}\" without its \"{{\"; {advice}"),
        );
        check(
            "fallback = \"{}\"",
            1,
            &format!("\"fallback\" of the rule book has a placeholder without a name; {advice}"),
        );
    }

    #[test]
    fn placeholders_that_nothing_can_fill() {
        check(
            &rule("go (?<direction>left)", "[\"a\",\n\"{directon}\"]", ""),
            5,
            "\"reply\" of rule \"move\" has an unknown placeholder \"{directon}\", expected \"direction\", \"text\" \
             (did you mean \"direction\"?)",
        );
        check(
            &rule("go", "\"{1}\"", ""),
            4,
            "\"reply\" of rule \"move\" has an unknown placeholder \"{1}\", expected \"text\"",
        );
        check(
            "fallback = \"{name}\"",
            1,
            "\"fallback\" of the rule book has an unknown placeholder \"{name}\", expected \"text\"",
        );
    }

    #[test]
    fn defaults_for_captures_that_do_not_exist() {
        check(
            &rule("go (?<distance>.+)?", "\"a\"", "[rule.default]\ndistence = \"x\""),
            6,
            "rule \"move\" has a default for \"distence\", which is no capture of its pattern, expected \"distance\" \
             (did you mean \"distance\"?)",
        );
        check(
            &rule("go", "\"a\"", "default = { far = \"x\" }"),
            5,
            "rule \"move\" has a default for \"far\", which is no capture of its pattern, expected none",
        );
    }

    #[test]
    fn books_beyond_the_limits() {
        let book = "#".repeat(MAX_BOOK_BYTES + 1);
        let error = RuleBook::parse(&book).unwrap_err();
        assert_eq!(error.to_string(), "rule book has 1048577 bytes, at most 1048576 are read");
        assert_eq!(error.line(), None);

        let mut book = String::new();
        for index in 0..=MAX_RULES {
            book += &format!("[[rule]]\nname = \"{index}\"\npattern = \"a\"\nreply = \"a\"\n");
        }
        check(&book, 4 * MAX_RULES + 1, "rule book has more than 1000 rules");
    }
}

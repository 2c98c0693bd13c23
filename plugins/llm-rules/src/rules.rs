//! A rule book: patterns, and what to reply when one matches.
//!
//! ```toml
//! # The first rule that matches wins.
//! fallback = "Sorry, I did not understand \"{text}\"."
//! greeting = "Hello."
//!
//! [[rule]]
//! name = "move"
//! pattern = "^go (?<direction>forward|backward)(?: (?<distance>.+))?$"
//! reply = "Going {direction} {distance}."
//! [rule.default]
//! distance = "one step"
//! ```
//!
//! Patterns are regular expressions of the crate `regex`, matched without regard to case against the *normalised*
//! text: trimmed, white space single, punctuation at the end removed. A reply names captures in braces, or `{text}`
//! for the whole normalised text; `{{` and `}}` are braces. A list of replies is used in turn.
//!
//! Not here: files, settings, streams; the reader and its errors are in `rules/parse.rs`.

mod parse;
mod template;

use std::{collections::BTreeMap, str::FromStr};

use regex::Regex;

pub use self::parse::RulesError;
use self::template::Template;

/// The book that answers when no other is given.
const BUILT_IN: &str = include_str!("default.toml");

/// Ordered rules with a fallback, so that every text has a reply.
#[derive(Debug, Clone)]
pub struct RuleBook {
    greeting: Option<String>,
    fallback: Replies,
    rules: Vec<Rule>,
}

/// What to say, and which rule said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Name of the rule that matched; none for the fallback.
    pub rule: Option<&'a str>,
    /// The filled-in reply. Empty only where a rule consists of an empty capture.
    pub text: String,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    pattern: Regex,
    replies: Replies,
    /// Values for captures that took no part in the match, by name.
    default: BTreeMap<String, String>,
}

/// At least one template, used in turn.
#[derive(Debug, Clone)]
struct Replies(Vec<Template>);

impl RuleBook {
    /// Reads a book from TOML.
    ///
    /// # Errors
    ///
    /// [`RulesError`] for the first thing in the book that is not as it should be, with its line: broken TOML,
    /// unknown or missing keys, patterns that are no regular expressions or compile to more than 256 KiB, and
    /// placeholders that no capture can fill.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        parse::book(text)
    }

    /// What to say before anybody has said anything, if the book has a `greeting`.
    pub fn greeting(&self) -> Option<&str> {
        self.greeting.as_deref()
    }

    /// Names of the rules, in the order in which they are tried.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &rule.name[..])
    }

    /// Answers `text` by the first rule that matches, else by the fallback.
    ///
    /// `turn` counts the user's turns and picks from a list of replies. The same text and turn always give the same
    /// reply; takes time linear in the length of the text.
    pub fn reply(&self, text: &str, turn: usize) -> Reply<'_> {
        let text = normalise(text);
        for rule in &self.rules {
            let Some(captures) = rule.pattern.captures(&text) else { continue };
            let value = |name: &str| {
                let captured = captures.name(name).map(|found| found.as_str().trim());
                let default = || rule.default.get(name).map(|default| &default[..]);
                captured.filter(|found| !found.is_empty()).or_else(default).unwrap_or_default()
            };
            let text = rule.replies.at(turn).fill(&text, value);
            return Reply { rule: Some(&rule.name), text };
        }
        Reply { rule: None, text: self.fallback.at(turn).fill(&text, |_| "") }
    }
}

impl Default for RuleBook {
    /// The built-in book: a small robot that moves, turns, counts and is polite.
    fn default() -> Self {
        Self::parse(BUILT_IN).expect("default.toml is parsed by a test of this file")
    }
}

impl FromStr for RuleBook {
    type Err = RulesError;

    fn from_str(text: &str) -> Result<Self, RulesError> {
        Self::parse(text)
    }
}

impl Replies {
    fn at(&self, turn: usize) -> &Template {
        &self.0[turn % self.0.len()]
    }
}

/// Cuts a reply into the pieces that a model would stream: word by word, each with the white space that follows it.
/// Joined they are exactly the text; white space before the first word belongs to the first piece.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.find(|c: char| !c.is_whitespace())?;
        let space = rest[word..].find(char::is_whitespace).map_or(rest.len(), |at| word + at);
        let next = rest[space..].find(|c: char| !c.is_whitespace()).map_or(rest.len(), |at| space + at);
        let (piece, after) = rest.split_at(next);
        rest = after;
        Some(piece)
    })
}

/// Trims, makes white space single, and removes what ends a sentence.
fn normalise(text: &str) -> String {
    let mut normalised = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !normalised.is_empty() {
            normalised.push(' ');
        }
        normalised.push_str(word);
    }
    let end = |c: char| {
        c == ' ' || ".,;:!?\u{2026}\u{3002}\u{ff01}\u{ff1f}\u{3001}\u{ff0c}\u{61f}\u{964}".contains(c)
    };
    normalised.truncate(normalised.trim_end_matches(end).len());
    normalised
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = r#"
        fallback = ["What is \"{text}\"?", "Again, please."]
        greeting = "Hello."

        [[rule]]
        name = "move"
        pattern = "^go (?<direction>forward|backward|left|right)(?: (?<distance>.+))?$"
        reply = "Going {direction} {distance}."
        [rule.default]
        distance = "one step"

        [[rule]]
        name = "go"
        pattern = "^go"
        reply = ["Going.", "Off I go.", "Gone."]

        [[rule]]
        name = "colour"
        pattern = "^(?<adjective>rot|gr\u00fcn)e? (?<noun>.*)$"
        reply = "{noun}|{adjective}|{{{text}}}"
    "#;

    #[track_caller]
    fn check(text: &str, rule: Option<&str>, want: &str) {
        let book = RuleBook::parse(BOOK).unwrap();
        let reply = book.reply(text, 0);
        assert_eq!((reply.rule, &reply.text[..]), (rule, want), "{text:?}");
    }

    #[test]
    fn captures_fill_the_reply_and_defaults_fill_what_is_missing() {
        check("go forward ten meters", Some("move"), "Going forward ten meters.");
        check("go left", Some("move"), "Going left one step.");
    }

    #[test]
    fn first_rule_that_matches_wins() {
        check("go forward", Some("move"), "Going forward one step.");
        check("go home", Some("go"), "Going.");
    }

    #[test]
    fn case_white_space_and_punctuation_at_the_end_do_not_matter() {
        check("  GO \t Forward\n ten  METERS ?!... ", Some("move"), "Going Forward ten METERS.");
        check("go left .", Some("move"), "Going left one step.");
        check("go left\u{3002}", Some("move"), "Going left one step.");
        check("go, left", Some("go"), "Going.");
    }

    #[test]
    fn unicode_is_matched_without_regard_to_case() {
        check("GR\u{dc}NE \u{c4}pfel", Some("colour"), "\u{c4}pfel|GR\u{dc}N|{GR\u{dc}NE \u{c4}pfel}");
        check("\u{65e5}\u{672c}\u{8a9e}\u{ff1f}", None, "What is \"\u{65e5}\u{672c}\u{8a9e}\"?");
    }

    #[test]
    fn text_that_no_rule_matches_gets_the_fallback() {
        check("Sing a song!", None, "What is \"Sing a song\"?");
        check("", None, "What is \"\"?");
        check(" ?! ", None, "What is \"\"?");
    }

    #[test]
    fn list_of_replies_is_used_in_turn() {
        let book = RuleBook::parse(BOOK).unwrap();
        let replies: Vec<_> = (0..4).map(|turn| book.reply("go on", turn).text).collect();
        assert_eq!(replies, ["Going.", "Off I go.", "Gone.", "Going."]);
        assert_eq!(book.reply("what", 1).text, "Again, please.");
        assert_eq!(book.reply("go on", usize::MAX).text, book.reply("go on", usize::MAX % 3).text);
    }

    #[test]
    fn empty_book_answers_with_the_fallback() {
        let book: RuleBook = "".parse().unwrap();
        assert_eq!(book.greeting(), None);
        assert_eq!(book.rules().count(), 0);
        assert_eq!(book.reply("hm", 0).text, "Sorry, I did not understand \"hm\".");
    }

    #[test]
    fn very_long_text_is_answered_with_a_short_quotation() {
        let book = RuleBook::default();
        for text in ["a ".repeat(50_000), "\u{1f600}".repeat(25_000), "go forward ".repeat(10_000)] {
            let reply = book.reply(&text, 0);
            assert!(reply.text.chars().count() < 300, "{}", reply.text.len());
            assert!(reply.text.contains('\u{2026}'), "{}", reply.text);
        }
    }

    #[test]
    fn any_text_is_answered() {
        const BITS: &[&str] = &[
            "go",
            "forward",
            " ",
            "  ",
            "\n",
            "ten",
            "{",
            "}",
            "{text}",
            "\u{0}",
            "\u{300}",
            "\u{202e}",
            "\u{1f600}",
            "\u{df}",
            "\u{130}",
            "?",
            ".",
            "\u{2026}",
            "hello",
            "please",
            "\"",
            "\\",
            "one",
            "of",
            "clubs",
            ",",
        ];
        let book = RuleBook::default();
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % below
        };
        for turn in 0..3000 {
            let text: String = (0..random(12)).map(|_| BITS[random(BITS.len())]).collect();
            let reply = book.reply(&text, turn);
            assert!(!reply.text.is_empty(), "{text:?}");
            assert_eq!(words(&reply.text).collect::<String>(), reply.text);
            assert_eq!(book.reply(&text, turn), reply);
        }
    }

    #[test]
    fn any_book_is_parsed_or_refused() {
        const BITS: &[&str] = &[
            "[[rule]]\n",
            "name",
            "pattern",
            "reply",
            "default",
            "fallback",
            " = ",
            "\"",
            "'",
            "{",
            "}",
            "[",
            "]",
            "\n",
            ".",
            "(?<a>b)",
            "\\",
            "1",
            "#",
            ",",
            "\u{fc}",
            "{a}",
            "[rule.default]\n",
            "a = \"b\"\n",
            "\u{0}",
            "\r",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % below
        };
        for _ in 0..5000 {
            let text: String = (0..random(30)).map(|_| BITS[random(BITS.len())]).collect();
            if let Err(error) = RuleBook::parse(&text) {
                let lines = text.matches('\n').count() + 1;
                assert!(error.line().is_some_and(|line| (1..=lines).contains(&line)), "{text:?}: {error}");
            }
        }
    }

    #[test]
    fn words_keep_the_white_space_behind_them() {
        #[track_caller]
        fn check(text: &str, want: &[&str]) {
            let pieces: Vec<&str> = words(text).collect();
            assert_eq!(pieces, want);
            assert_eq!(pieces.concat(), text);
        }
        check("", &[]);
        check("one", &["one"]);
        check("Going forward. Stop?", &["Going ", "forward. ", "Stop?"]);
        check(" two  spaces \n", &[" two  ", "spaces \n"]);
        check("\u{e4}\u{a0}\u{f6}\u{2003}\u{fc}", &["\u{e4}\u{a0}", "\u{f6}\u{2003}", "\u{fc}"]);
    }

    #[test]
    fn built_in_book_answers_what_a_robot_is_told() {
        #[track_caller]
        fn check(text: &str, rule: &str, want: &str) {
            let book = RuleBook::default();
            let reply = book.reply(text, 0);
            assert_eq!((reply.rule, &reply.text[..]), (Some(rule), want), "{text}");
        }
        check("go forward ten meters", "move", "Going forward ten meters. Tell me when to stop.");
        check("Please move back, please.", "move", "Going back one step. Tell me when to stop.");
        check(
            "could you go straight ahead for two feet please",
            "move",
            "Going ahead two feet. Tell me when to stop.",
        );
        check("left", "direction", "Going left one step. Tell me when to stop.");
        check("turn left ninety degrees", "turn", "Turning left ninety degrees. What is next?");
        check("turn around", "turn", "Turning around until I face the other way. What is next?");
        check("Stop!", "stop", "Stopping. I stay where I am.");
        check("please stop now", "stop", "Stopping. I stay where I am.");
        check("bring me the red ball please", "fetch", "I look for the red ball. Please be patient.");
        check("go somewhere and do something", "somewhere", "I would like that. Tell me where to go first.");
        check("come here", "come", "I am on my way to you. Keep talking, so that I can find you.");
        check("go to the kitchen", "place", "I am on my way: the kitchen. It may take a moment.");
        check("go home", "place", "I am on my way: home. It may take a moment.");
        check("say hello world", "say", "hello world.");
        check("a bit faster", "speed", "A little faster, then.");
        check("Hello, robot!", "greeting", "Hello. Where shall I go?");
        check("hello, my name is Ada", "name", "Nice to meet you, Ada. Where shall I go?");
        check("How are you?", "how-are-you", "All my wheels turn, thank you. And you?");
        check("thank you very much", "thanks", "You are welcome.");
        check("good bye", "goodbye", "Goodbye. I will be here.");
        check("yes please", "yes", "Good.");
        check("no thanks", "no", "All right, I leave it.");
        check(
            "what's your name",
            "who",
            "I am a small set of rules that answers like a robot. I have no name yet.",
        );
        check("where are you?", "where", "I am where you left me. Shall I come?");
        check("two nine three four zero", "numbers", "I heard two nine three four zero.");
        check("forty-two", "numbers", "I heard forty-two.");
        check("seven of clubs", "card", "The seven of clubs. A good card to start with.");

        let book = RuleBook::default();
        assert_eq!(book.reply("What can you do?", 0).rule, Some("help"));
        assert_eq!(book.reply("he was not an ill disposed young man", 0).rule, None);
        assert!(book.greeting().is_some());
    }
}

//! Reads a JSGF grammar, finds its mistakes, and writes it in a form that PocketSphinx takes without surprises.
//!
//! PocketSphinx has a parser of its own, which this does not replace but precedes, because of what that one does
//! silently (all tried, with 0.8): a rule that is not defined, a recursion that it cannot express and `<VOID>` leave
//! a grammar that matches nothing; text between rules goes to the standard output of the process; of several public
//! rules one counts, chosen by the order of a hash table; a quoted token keeps its quotes and is in no dictionary.
//!
//! Not here: which words the dictionary has ([`dictionary`](crate::dictionary)), and the grammar at work
//! ([`decoder`](crate::decoder)). Imports are refused: one text has to say it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// A grammar that PocketSphinx can use: every rule that it refers to is there.
#[derive(Clone, Debug)]
pub struct Grammar {
    rules: Vec<Rule>,
    public: Vec<usize>,
}

/// What is wrong with the text of a grammar.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// The first line is not that of a JSGF grammar.
    #[error("a JSGF grammar starts with `#JSGF V1.0;`, this starts with `{found}`")]
    Header {
        /// Beginning of the text.
        found: String,
    },
    /// The text breaks the rules of JSGF.
    #[error("line {line} of the grammar: expected {expected}, found {found}")]
    Syntax {
        /// Line of the text, from 1.
        line: usize,
        /// What could stand here.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// Something that JSGF has and this plugin does not do.
    #[error("line {line} of the grammar: {what} is not supported")]
    Unsupported {
        /// Line of the text, from 1.
        line: usize,
        /// What it is.
        what: &'static str,
    },
    /// A rule is used and defined nowhere.
    #[error("line {line} of the grammar: the rule <{rule}> is not defined")]
    UndefinedRule {
        /// Line of the text, from 1.
        line: usize,
        /// Name of the rule.
        rule: String,
    },
    /// A rule is defined twice.
    #[error("line {line} of the grammar: the rule <{rule}> is defined already")]
    DuplicateRule {
        /// Line of the text, from 1.
        line: usize,
        /// Name of the rule.
        rule: String,
    },
    /// Nothing can be said.
    #[error("the grammar has no public rule, so nothing can be said")]
    NoPublicRule,
    /// A rule contains itself, and something follows.
    #[error(
        "line {line} of the grammar: the rule <{rule}> may refer to itself only as the last thing that it says"
    )]
    Recursion {
        /// Line of the reference, from 1.
        line: usize,
        /// Name of the rule.
        rule: String,
    },
    /// Written out, with every rule where it is used, the grammar is too large or too deep.
    #[error(
        "the grammar is too large: written out it has more than {LARGEST} words, or more than {DEEPEST} \
         rules and parentheses within each other"
    )]
    TooLarge,
}

/// The file that should hold a grammar could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the grammar {}; wanted its path, or its text, which starts with `#JSGF`", path.display())]
pub struct ReadError {
    /// Path of the file.
    pub path: PathBuf,
    /// Why it could not be read.
    pub source: std::io::Error,
}

/// Gives the text of a grammar for a setting that is either that text or the path of a file with it.
///
/// # Errors
///
/// [`ReadError`] when the setting does not start with `#JSGF` and is not the path of a text file.
pub fn text_of(setting: &str) -> Result<String, ReadError> {
    if setting.trim_start_matches(BYTE_ORDER_MARK).trim_start().starts_with(HEADER) {
        return Ok(setting.to_owned());
    }
    let path = Path::new(setting.trim());
    std::fs::read_to_string(path).map_err(|source| ReadError { path: path.to_owned(), source })
}

impl Grammar {
    /// Reads the text of a grammar.
    ///
    /// # Errors
    ///
    /// [`GrammarError`], for the first mistake.
    pub fn parse(text: &str) -> Result<Grammar, GrammarError> {
        let mut parser = Parser::new(text)?;
        let name = parser.declaration()?;
        let mut rules = Vec::new();
        let mut by_name = BTreeMap::new();
        while let Some(rule) = parser.rule()? {
            if by_name.insert(rule.name.clone(), rules.len()).is_some() {
                return Err(GrammarError::DuplicateRule { line: rule.line, rule: rule.name });
            }
            rules.push(rule);
        }
        for rule in &mut rules {
            rule.body.resolve(&name, &by_name)?;
        }
        let public: Vec<usize> = (0..rules.len()).filter(|&rule| rules[rule].is_public).collect();
        if public.is_empty() {
            return Err(GrammarError::NoPublicRule);
        }
        let grammar = Grammar { rules, public };
        let mut walk = Walk { grammar: &grammar, path: Vec::new(), depth: 0, words: 0 };
        for &rule in &grammar.public {
            walk.enter(rule, true)?;
        }
        Ok(grammar)
    }

    /// The words that can be said, as the grammar spells them.
    #[must_use]
    pub fn words(&self) -> BTreeSet<&str> {
        let mut words = BTreeSet::new();
        for rule in self.reachable() {
            self.rules[rule].body.each(&mut |item| {
                if let Item::Word(word) = item {
                    words.insert(word.as_str());
                }
            });
        }
        words
    }

    /// Writes the grammar with one public rule, which is any of its public rules.
    #[must_use]
    pub fn to_jsgf(&self) -> String {
        let mut text = String::from("#JSGF V1.0;\ngrammar antiphon;\npublic <antiphon> = ");
        for (index, rule) in self.public.iter().enumerate() {
            let separator = if index == 0 { "" } else { " | " };
            let _ = write!(text, "{separator}<r{rule}>");
        }
        text.push_str(";\n");
        for rule in self.reachable() {
            let _ = write!(text, "<r{rule}> = ");
            self.rules[rule].body.write(&mut text);
            text.push_str(";\n");
        }
        text
    }

    fn reachable(&self) -> BTreeSet<usize> {
        let mut reached: BTreeSet<usize> = self.public.iter().copied().collect();
        let mut open = self.public.clone();
        while let Some(rule) = open.pop() {
            self.rules[rule].body.each(&mut |item| {
                if let Item::Rule { target, .. } = item
                    && reached.insert(*target)
                {
                    open.push(*target);
                }
            });
        }
        reached
    }
}

const HEADER: &str = "#JSGF";
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Words of a grammar with every rule where it is used. PocketSphinx makes a state of each, and searches all that fit.
const LARGEST: usize = 100_000;

/// Rules within rules, and parentheses within parentheses: both PocketSphinx and this file recurse for them.
const DEEPEST: usize = 200;

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    line: usize,
    is_public: bool,
    body: Choice,
}

/// Alternatives, at least one.
#[derive(Clone, Debug)]
struct Choice(Vec<Sequence>);

#[derive(Clone, Debug)]
struct Sequence {
    weight: Option<f32>,
    /// At least one; several are all something else than [`Item::Nothing`].
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
enum Item {
    Nothing,
    Word(String),
    /// `target` is set by [`Choice::resolve`].
    Rule {
        name: String,
        line: usize,
        target: usize,
    },
    Group(Choice),
    Optional(Choice),
    Repeat {
        item: Box<Item>,
        can_be_absent: bool,
    },
}

impl Choice {
    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Item)) {
        for item in self.0.iter().flat_map(|sequence| &sequence.items) {
            item.each(f);
        }
    }

    fn resolve(&mut self, grammar: &str, rules: &BTreeMap<String, usize>) -> Result<(), GrammarError> {
        for item in self.0.iter_mut().flat_map(|sequence| &mut sequence.items) {
            item.resolve(grammar, rules)?;
        }
        Ok(())
    }

    fn write(&self, text: &mut String) {
        // PocketSphinx takes a weight as a probability, and ends the process for some above 1.
        let heaviest = self.0.iter().map(|sequence| sequence.weight.unwrap_or(1.0)).fold(0.0, f32::max);
        let is_weighted = heaviest > 0.0 && self.0.iter().any(|sequence| sequence.weight.is_some());
        for (index, sequence) in self.0.iter().enumerate() {
            if index > 0 {
                text.push_str(" | ");
            }
            if is_weighted {
                let weight = (sequence.weight.unwrap_or(1.0) / heaviest).max(LEAST_WEIGHT);
                let _ = write!(text, "/{weight:.6}/ ");
            }
            for (index, item) in sequence.items.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                item.write(text);
            }
        }
    }
}

/// Weight of an alternative with weight 0, which has no logarithm.
const LEAST_WEIGHT: f32 = 1e-6;

impl Item {
    fn each<'a>(&'a self, f: &mut dyn FnMut(&'a Item)) {
        f(self);
        match self {
            Item::Nothing | Item::Word(_) | Item::Rule { .. } => {}
            Item::Group(choice) | Item::Optional(choice) => choice.each(f),
            Item::Repeat { item, .. } => item.each(f),
        }
    }

    fn resolve(&mut self, grammar: &str, rules: &BTreeMap<String, usize>) -> Result<(), GrammarError> {
        match self {
            Item::Nothing | Item::Word(_) => Ok(()),
            Item::Group(choice) | Item::Optional(choice) => choice.resolve(grammar, rules),
            Item::Repeat { item, .. } => item.resolve(grammar, rules),
            Item::Rule { name, line, target } => {
                // `<rule>`, `<grammar.rule>` and `<package.grammar.rule>` are the same.
                let simple = match name.rsplit_once('.') {
                    None => Some(name.as_str()),
                    Some((prefix, simple)) => {
                        let last = grammar.rsplit_once('.').map_or(grammar, |(_, last)| last);
                        (prefix == grammar || prefix == last).then_some(simple)
                    }
                };
                let Some(&found) = simple.and_then(|simple| rules.get(simple)) else {
                    return Err(GrammarError::UndefinedRule { line: *line, rule: name.clone() });
                };
                *target = found;
                Ok(())
            }
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Item::Nothing => text.push_str("<NULL>"),
            Item::Word(word) => text.push_str(word),
            Item::Rule { target, .. } => {
                let _ = write!(text, "<r{target}>");
            }
            Item::Group(choice) => {
                text.push('(');
                choice.write(text);
                text.push(')');
            }
            Item::Optional(choice) => {
                text.push('[');
                choice.write(text);
                text.push(']');
            }
            Item::Repeat { item, can_be_absent } => {
                item.write(text);
                text.push(if *can_be_absent { '*' } else { '+' });
            }
        }
    }
}

/// Goes through the grammar as PocketSphinx expands it, to find what that could not do.
struct Walk<'a> {
    grammar: &'a Grammar,
    /// Rules being expanded, and whether each is the last thing that the one before says.
    path: Vec<(usize, bool)>,
    /// Rules and parentheses around the current item.
    depth: usize,
    words: usize,
}

impl Walk<'_> {
    fn enter(&mut self, rule: usize, is_last: bool) -> Result<(), GrammarError> {
        self.path.push((rule, is_last));
        let grammar = self.grammar;
        self.choice(&grammar.rules[rule].body, true)?;
        self.path.pop();
        Ok(())
    }

    fn choice(&mut self, choice: &Choice, is_last: bool) -> Result<(), GrammarError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(GrammarError::TooLarge);
        }
        for sequence in &choice.0 {
            let last = sequence.items.len() - 1;
            for (index, item) in sequence.items.iter().enumerate() {
                self.item(item, is_last && index == last)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn item(&mut self, item: &Item, is_last: bool) -> Result<(), GrammarError> {
        self.words += 1;
        if self.words > LARGEST {
            return Err(GrammarError::TooLarge);
        }
        match item {
            Item::Nothing | Item::Word(_) => Ok(()),
            Item::Group(choice) | Item::Optional(choice) => self.choice(choice, is_last),
            Item::Repeat { item, .. } => self.item(item, false),
            Item::Rule { name, line, target } => {
                match self.path.iter().position(|(rule, _)| rule == target) {
                    None => self.enter(*target, is_last),
                    Some(outer) => {
                        let is_last = is_last && self.path[outer + 1..].iter().all(|&(_, is_last)| is_last);
                        if is_last {
                            Ok(())
                        } else {
                            Err(GrammarError::Recursion { line: *line, rule: name.clone() })
                        }
                    }
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    RuleName(String),
    Weight(f32),
    Sign(char),
    End,
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    depth: usize,
    /// The next token and its line.
    next: Token,
    next_line: usize,
}

impl<'a> Parser<'a> {
    /// Starts behind the header.
    fn new(text: &'a str) -> Result<Parser<'a>, GrammarError> {
        let text = text.trim_start_matches(BYTE_ORDER_MARK);
        let trimmed = text.trim_start();
        let header = trimmed.strip_prefix(HEADER).and_then(|rest| rest.split_once(';'));
        let Some((version, rest)) = header.filter(|(version, _)| !version.contains('\n')) else {
            return Err(GrammarError::Header { found: excerpt(trimmed) });
        };
        let before = text.len() - trimmed.len();
        let line = 1 + newlines(&text[..before]) + newlines(version);
        let mut parser = Parser { rest, line, depth: 0, next: Token::End, next_line: line };
        parser.advance()?;
        Ok(parser)
    }

    /// Reads `grammar name;` and refuses what may follow in JSGF.
    fn declaration(&mut self) -> Result<String, GrammarError> {
        self.expect(&Token::Word("grammar".into()), "`grammar name;`")?;
        let Token::Word(name) = self.advance()? else {
            return Err(self.unexpected("the name of the grammar"));
        };
        self.expect(&Token::Sign(';'), "`;` behind the name of the grammar")?;
        if self.next == Token::Word("import".into()) {
            return Err(GrammarError::Unsupported { line: self.next_line, what: "`import`" });
        }
        Ok(name)
    }

    fn rule(&mut self) -> Result<Option<Rule>, GrammarError> {
        if self.next == Token::End {
            return Ok(None);
        }
        let is_public = self.take(&Token::Word("public".into()))?;
        let line = self.next_line;
        let Token::RuleName(name) = &self.next else {
            return Err(self.unexpected("a rule: `<name> = ...;`"));
        };
        let name = name.clone();
        self.advance()?;
        self.expect(&Token::Sign('='), "`=` behind the name of the rule")?;
        let body = self.choice()?;
        self.expect(&Token::Sign(';'), "`|`, `;` or more to say")?;
        Ok(Some(Rule { name, line, is_public, body }))
    }

    fn choice(&mut self) -> Result<Choice, GrammarError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(GrammarError::TooLarge);
        }
        let mut sequences = vec![self.sequence()?];
        while self.take(&Token::Sign('|'))? {
            sequences.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(Choice(sequences))
    }

    fn sequence(&mut self) -> Result<Sequence, GrammarError> {
        let weight = match self.next {
            Token::Weight(weight) => {
                self.advance()?;
                Some(weight)
            }
            _ => None,
        };
        let mut items = Vec::new();
        while let Some(item) = self.item()? {
            items.push(item);
        }
        if items.is_empty() {
            return Err(self.unexpected("a word, a rule, `(` or `[`"));
        }
        // Beside something else, nothing is nothing; PocketSphinx would lose the end of the sequence.
        if items.len() > 1 {
            items.retain(|item| !matches!(item, Item::Nothing));
        }
        if items.is_empty() {
            items.push(Item::Nothing);
        }
        Ok(Sequence { weight, items })
    }

    fn item(&mut self) -> Result<Option<Item>, GrammarError> {
        let mut item = match &self.next {
            Token::Word(word) => Item::Word(word.clone()),
            Token::Quoted(words) => {
                let items: Vec<Item> =
                    words.split_whitespace().map(|word| Item::Word(word.to_owned())).collect();
                if items.is_empty() {
                    return Err(self.unexpected("words within the quotes"));
                }
                Item::Group(Choice(vec![Sequence { weight: None, items }]))
            }
            Token::RuleName(name) => match name.as_str() {
                "NULL" => Item::Nothing,
                "VOID" => {
                    return Err(GrammarError::Unsupported { line: self.next_line, what: "`<VOID>`" });
                }
                _ => Item::Rule { name: name.clone(), line: self.next_line, target: 0 },
            },
            Token::Sign('(') => {
                self.advance()?;
                let choice = self.choice()?;
                if self.next != Token::Sign(')') {
                    return Err(self.unexpected("`)`"));
                }
                Item::Group(choice)
            }
            Token::Sign('[') => {
                self.advance()?;
                let choice = self.choice()?;
                if self.next != Token::Sign(']') {
                    return Err(self.unexpected("`]`"));
                }
                Item::Optional(choice)
            }
            Token::Weight(_) => {
                return Err(self.unexpected("a word: a weight stands at the start of an alternative"));
            }
            Token::Sign(_) | Token::End => return Ok(None),
        };
        self.advance()?;
        loop {
            let can_be_absent = match self.next {
                Token::Sign('*') => true,
                Token::Sign('+') => false,
                _ => return Ok(Some(item)),
            };
            self.advance()?;
            // Saying nothing again and again would never end, and what repeats already need not repeat again.
            item = match item {
                Item::Nothing => Item::Nothing,
                Item::Repeat { item, can_be_absent: inner } => {
                    Item::Repeat { item, can_be_absent: inner || can_be_absent }
                }
                item => Item::Repeat { item: Box::new(item), can_be_absent },
            };
        }
    }

    fn take(&mut self, token: &Token) -> Result<bool, GrammarError> {
        let is_next = self.next == *token;
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn expect(&mut self, token: &Token, expected: &'static str) -> Result<(), GrammarError> {
        if self.take(token)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> GrammarError {
        let found = match &self.next {
            Token::Word(word) => format!("`{word}`"),
            Token::Quoted(words) => format!("`\"{words}\"`"),
            Token::RuleName(name) => format!("`<{name}>`"),
            Token::Weight(weight) => format!("the weight {weight}"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".to_owned(),
        };
        GrammarError::Syntax { line: self.next_line, expected, found }
    }

    /// Gives the next token and reads the one after it.
    fn advance(&mut self) -> Result<Token, GrammarError> {
        self.skip_unspoken()?;
        self.next_line = self.line;
        let Some(first) = self.rest.chars().next() else {
            return Ok(std::mem::replace(&mut self.next, Token::End));
        };
        let token = match first {
            '<' => {
                let name = self.enclosed('>', "`>` behind the name of a rule")?;
                Token::RuleName(name.trim().to_owned())
            }
            '"' => Token::Quoted(self.enclosed('"', "`\"` behind quoted words")?),
            '/' => {
                let text = self.enclosed('/', "`/` behind a weight")?;
                match text.trim().parse::<f32>() {
                    Ok(weight) if weight.is_finite() && weight >= 0.0 => Token::Weight(weight),
                    _ => {
                        return Err(GrammarError::Syntax {
                            line: self.next_line,
                            expected: "a weight, as in `/0.5/`",
                            found: format!("`/{}/`", excerpt(&text)),
                        });
                    }
                }
            }
            _ if SIGNS.contains(first) => {
                self.rest = &self.rest[first.len_utf8()..];
                Token::Sign(first)
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || SIGNS.contains(c) || "<\"/{".contains(c);
                let end = self.rest.find(ends).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                Token::Word(word.to_owned())
            }
        };
        Ok(std::mem::replace(&mut self.next, token))
    }

    /// Skips white space, comments and tags: a tag is for a program that reads the grammar, and nobody says it.
    fn skip_unspoken(&mut self) -> Result<(), GrammarError> {
        loop {
            let trimmed = self.rest.trim_start();
            self.line += newlines(&self.rest[..self.rest.len() - trimmed.len()]);
            self.rest = trimmed;
            if let Some(comment) = trimmed.strip_prefix("//") {
                self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let end = comment.find("*/").ok_or_else(|| self.unclosed("`*/` behind a comment"))?;
                self.line += newlines(&comment[..end]);
                self.rest = &comment[end + 2..];
            } else if trimmed.starts_with('{') {
                self.enclosed('}', "`}` behind a tag")?;
            } else {
                return Ok(());
            }
        }
    }

    /// Takes what stands between the next character and `close`, where a backslash protects the character behind it.
    fn enclosed(&mut self, close: char, expected: &'static str) -> Result<String, GrammarError> {
        let mut text = String::new();
        let mut is_protected = false;
        for (index, c) in self.rest.char_indices().skip(1) {
            if !is_protected && c == close {
                self.line += newlines(&self.rest[..index]);
                self.rest = &self.rest[index + close.len_utf8()..];
                return Ok(text);
            }
            is_protected = !is_protected && c == '\\';
            if !is_protected {
                text.push(c);
            }
        }
        Err(self.unclosed(expected))
    }

    fn unclosed(&self, expected: &'static str) -> GrammarError {
        GrammarError::Syntax { line: self.line, expected, found: "the end".to_owned() }
    }
}

/// Characters that are tokens by themselves.
const SIGNS: &str = ";=|*+()[]>}";

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&byte| byte == b'\n').count()
}

fn excerpt(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, want: Result<&str, GrammarError>) {
        let got = Grammar::parse(&format!("#JSGF V1.0;\ngrammar g;\n{rules}"));
        let got = got.map(|grammar| {
            let jsgf = grammar.to_jsgf();
            jsgf.strip_prefix("#JSGF V1.0;\ngrammar antiphon;\npublic <antiphon> = ").unwrap().to_owned()
        });
        assert_eq!(got, want.map(str::to_owned));
    }

    #[test]
    fn grammar_is_written_with_one_public_rule() {
        check("public <a> = go;", Ok("<r0>;\n<r0> = go;\n"));
        check("public <a> = go; public <b> = stop;", Ok("<r0> | <r1>;\n<r0> = go;\n<r1> = stop;\n"));
        check("public <a> = <b>; <b> = go; <c> = unused;", Ok("<r0>;\n<r0> = <r1>;\n<r1> = go;\n"));
        check(
            "public <a> = <g.b> (x | y) [z]; <b> = go;",
            Ok("<r0>;\n<r0> = <r1> (x | y) [z];\n<r1> = go;\n"),
        );
        check("public <a> = x* y+ (x y)+;", Ok("<r0>;\n<r0> = x* y+ (x y)+;\n"));
        check("public <a> = x {tag \\} of x} y; // end", Ok("<r0>;\n<r0> = x y;\n"));
        check("/* public <b> = x; */ public <a> = \"new york\" x;", Ok("<r0>;\n<r0> = (new york) x;\n"));
        check("public <a> = go | <NULL>;", Ok("<r0>;\n<r0> = go | <NULL>;\n"));
        check("public <a> = go <NULL> | <NULL> <NULL>;", Ok("<r0>;\n<r0> = go | <NULL>;\n"));
        check("public <a> = x+*;", Ok("<r0>;\n<r0> = x*;\n"));
    }

    #[test]
    fn weights_become_probabilities() {
        check("public <a> = /5/ x | /1/ y;", Ok("<r0>;\n<r0> = /1.000000/ x | /0.200000/ y;\n"));
        check("public <a> = /0/ x | y;", Ok("<r0>;\n<r0> = /0.000001/ x | /1.000000/ y;\n"));
        check("public <a> = /0/ x;", Ok("<r0>;\n<r0> = x;\n"));
    }

    #[test]
    fn recursion_at_the_end_is_all_that_pocketsphinx_can_do() {
        check("public <a> = x [<a>];", Ok("<r0>;\n<r0> = x [<r0>];\n"));
        check("public <a> = x <b> | y; <b> = z <a>;", Ok("<r0>;\n<r0> = x <r1> | y;\n<r1> = z <r0>;\n"));
        let recursion = |rule: &str| Err(GrammarError::Recursion { line: 3, rule: rule.into() });
        check("public <a> = <a> x | y;", recursion("a"));
        check("public <a> = x (<a>) y | z;", recursion("a"));
        check("public <a> = x <a>* | y;", recursion("a"));
        check("public <a> = <b> x | y; <b> = z <a>;", recursion("a"));
        check("public <a> = x <b> | <b> y; <b> = z [<a>];", recursion("a"));
    }

    #[test]
    fn mistakes_are_named() {
        let syntax =
            |line, expected, found: &str| Err(GrammarError::Syntax { line, expected, found: found.into() });
        check("public <a> =\n go <typo>;", Err(GrammarError::UndefinedRule { line: 4, rule: "typo".into() }));
        check("<a> = go;", Err(GrammarError::NoPublicRule));
        check("", Err(GrammarError::NoPublicRule));
        check("public <a> = x; <a> = y;", Err(GrammarError::DuplicateRule { line: 3, rule: "a".into() }));
        check("stray public <a> = x;", syntax(3, "a rule: `<name> = ...;`", "`stray`"));
        check("public <a> = x", syntax(3, "`|`, `;` or more to say", "the end"));
        check("public <a> = (x;", syntax(3, "`)`", "`;`"));
        check("public <a> = x | ;", syntax(3, "a word, a rule, `(` or `[`", "`;`"));
        check("public <a> = ();", syntax(3, "a word, a rule, `(` or `[`", "`)`"));
        check("public <a> = /x/ y;", syntax(3, "a weight, as in `/0.5/`", "`/x/`"));
        check(
            "public <a> = y /2/ z;",
            syntax(3, "a word: a weight stands at the start of an alternative", "the weight 2"),
        );
        check("public <a = x;", syntax(3, "`>` behind the name of a rule", "the end"));
        check("/* public", syntax(3, "`*/` behind a comment", "the end"));
        check("\n/*\n*/ public <a> = {x\n", syntax(5, "`}` behind a tag", "the end"));
        check("import <x.y>;", Err(GrammarError::Unsupported { line: 3, what: "`import`" }));
        check("public <a> = <VOID>;", Err(GrammarError::Unsupported { line: 3, what: "`<VOID>`" }));
        assert_eq!(
            Grammar::parse("go forward").unwrap_err(),
            GrammarError::Header { found: "go forward".into() }
        );
    }

    #[test]
    fn hostile_grammars_end() {
        let mut doubling = String::from("public <r0> = x;");
        for rule in 1..40 {
            doubling += &format!("public <r{rule}> = <r{0}> <r{0}>;", rule - 1);
        }
        check(&doubling, Err(GrammarError::TooLarge));
        check(&format!("public <a> = {}", "(".repeat(100_000)), Err(GrammarError::TooLarge));
        let text = "#JSGF V1.0; grammar g; /* é */ public <é> = (a | /1/ \"b\\\" c\")* {t} [<é>];";
        for end in 0..text.len() {
            for start in [0, end / 2] {
                if let Some(part) = text.get(start..end) {
                    let _ = Grammar::parse(part);
                }
            }
        }
    }

    #[test]
    fn words_are_those_that_can_be_said() {
        let text =
            "#JSGF V1.0; grammar g; public <a> = Go <b> {tag}; <b> = \"ten meters\" | go; <c> = unused;";
        let grammar = Grammar::parse(text).unwrap();
        assert_eq!(grammar.words().into_iter().collect::<Vec<_>>(), ["Go", "go", "meters", "ten"]);
    }

    #[test]
    fn setting_is_a_text_or_a_path() {
        assert_eq!(text_of(" #JSGF V1.0; ...").unwrap(), " #JSGF V1.0; ...");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#JSGF").unwrap();
        assert_eq!(text_of(file.path().to_str().unwrap()).unwrap(), "#JSGF");
        let error = text_of("/nowhere/x.gram").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the grammar /nowhere/x.gram; wanted its path, or its text, which starts with `#JSGF`"
        );
    }
}

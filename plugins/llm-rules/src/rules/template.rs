//! Replies with placeholders: `Going {direction}.`
//!
//! Not here: which names a placeholder may have; the reader of the book checks them against the pattern.

/// Longest part of what the user said that a reply repeats, in characters. The rest becomes an ellipsis: a voice
/// that reads a page back is no answer.
const MAX_QUOTED_CHARS: usize = 200;

/// The placeholder for all that was said.
pub(super) const TEXT: &str = "text";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Placeholder(String),
}

/// What is wrong with the braces of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BraceError {
    Unclosed,
    Unopened,
    Empty,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, BraceError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..];
            if brace.starts_with("{{") || brace.starts_with("}}") {
                literal.push_str(&brace[..1]);
                rest = &brace[2..];
                continue;
            }
            let name = brace.strip_prefix('{').ok_or(BraceError::Unopened)?;
            let end = name.find(['{', '}']).filter(|&end| name[end..].starts_with('}'));
            let end = end.ok_or(BraceError::Unclosed)?;
            if name[..end].is_empty() {
                return Err(BraceError::Empty);
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Placeholder(name[..end].to_owned()));
            rest = &name[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(&name[..]),
            Piece::Literal(_) => None,
        })
    }

    /// Puts `text` for `{text}` and `value(name)` for every other placeholder.
    pub(super) fn fill<'a>(&'a self, text: &'a str, value: impl Fn(&'a str) -> &'a str) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => filled.push_str(literal),
                Piece::Placeholder(name) if name == TEXT => push_quoted(&mut filled, text),
                Piece::Placeholder(name) => push_quoted(&mut filled, value(name)),
            }
        }
        filled
    }
}

fn push_quoted(filled: &mut String, value: &str) {
    match value.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => {
            filled.push_str(value[..end].trim_end());
            filled.push('\u{2026}');
        }
        None => filled.push_str(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, want: Result<&str, BraceError>) {
        let filled = Template::parse(template).map(|template| template.fill("all", |name| name));
        assert_eq!(filled.as_deref().map_err(|error| *error), want);
    }

    #[test]
    fn placeholders_are_filled_and_double_braces_are_braces() {
        check("", Ok(""));
        check("plain", Ok("plain"));
        check("{a}{b}", Ok("ab"));
        check("go {direction} {distance}.", Ok("go direction distance."));
        check("{{a}} {{{a}}} }}{{", Ok("{a} {a} }{"));
        check("\u{e4}{\u{f6}}\u{fc}", Ok("\u{e4}\u{f6}\u{fc}"));
        check("say {text}", Ok("say all"));
    }

    #[test]
    fn lone_braces_are_refused() {
        check("{a", Err(BraceError::Unclosed));
        check("{", Err(BraceError::Unclosed));
        check("{a{b}", Err(BraceError::Unclosed));
        check("a}", Err(BraceError::Unopened));
        check("{a}}", Err(BraceError::Unopened));
        check("{}", Err(BraceError::Empty));
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let template = Template::parse("<{a}>").unwrap();
        let long = "\u{e9}".repeat(MAX_QUOTED_CHARS + 1);
        let filled = template.fill("", |_| &long);
        assert_eq!(filled, format!("<{}\u{2026}>", "\u{e9}".repeat(MAX_QUOTED_CHARS)));
        let fits = "\u{e9}".repeat(MAX_QUOTED_CHARS);
        assert_eq!(template.fill("", |_| &fits), format!("<{fits}>"));
    }
}

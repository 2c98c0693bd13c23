//! Cuts a streamed reply into what is synthesised at a time: sentences, so that the first is spoken while the second is
//! generated. Pure: text in, text out.

/// Characters after which a sentence is cut at a comma or a space. VoiceAgent cuts at 200.
const MAX_CHARS: usize = 200;

/// Words that end in a dot without ending a sentence.
const ABBREVIATIONS: [&str; 20] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "no", "inc", "ltd", "jr", "sr",
    "approx", "fig", "a.m", "p.m", "u.s",
];

/// Collects text until there is a sentence.
#[derive(Debug, Default)]
pub(super) struct Chunker {
    text: String,
}

impl Chunker {
    /// Adds text and returns the sentences that are complete now.
    pub(super) fn push(&mut self, text: &str) -> Vec<String> {
        self.text.push_str(text);
        let mut sentences = Vec::new();
        while let Some(end) = self.sentence_end() {
            let rest = self.text.split_off(end);
            let sentence = std::mem::replace(&mut self.text, rest);
            push_spoken(&mut sentences, &sentence);
        }
        sentences
    }

    /// What is left at the end of the reply.
    pub(super) fn finish(&mut self) -> Option<String> {
        let mut rest = Vec::new();
        push_spoken(&mut rest, &std::mem::take(&mut self.text));
        rest.pop()
    }

    /// Byte position after the first complete sentence.
    fn sentence_end(&self) -> Option<usize> {
        let mut chars = self.text.char_indices().peekable();
        let (mut count, mut soft) = (0, None);
        while let Some((at, char)) = chars.next() {
            count += 1;
            let after = at + char.len_utf8();
            let next = chars.peek().map(|(_, next)| *next);
            match char {
                '\n' if !self.text[..at].trim().is_empty() => return Some(after),
                '。' | '！' | '？' => return Some(after),
                '.' | '!' | '?' | '…' => {
                    // Whether it ends a sentence shows with the next character only: 3.5, "...", example.org.
                    let closed = next.is_some_and(char::is_whitespace);
                    if closed && !(char == '.' && is_abbreviation(&self.text[..at])) {
                        return Some(after);
                    }
                }
                ',' | ';' | ':' if next.is_some_and(char::is_whitespace) => soft = Some(after),
                _ => {}
            }
            if count >= MAX_CHARS {
                let space = || self.text[..after].rfind(char::is_whitespace).map(|at| at + 1);
                return Some(soft.filter(|at| *at * 2 > after).or_else(space).unwrap_or(after));
            }
        }
        None
    }
}

fn push_spoken(sentences: &mut Vec<String>, text: &str) {
    let text = text.trim();
    if text.chars().any(char::is_alphanumeric) {
        sentences.push(text.to_owned());
    }
}

fn is_abbreviation(before: &str) -> bool {
    let word = before.rsplit(|char: char| char.is_whitespace() || char == '(').next().unwrap_or_default();
    let lower = word.to_lowercase();
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    initial || ABBREVIATIONS.contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes character by character, as the slowest of streams.
    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let mut chunker = Chunker::default();
        let mut found: Vec<String> = text.chars().flat_map(|char| chunker.push(&char.to_string())).collect();
        found.extend(chunker.finish());
        assert_eq!(found, want);
        let mut whole = Chunker::default();
        let mut at_once = whole.push(text);
        at_once.extend(whole.finish());
        assert_eq!(at_once, want, "in one piece");
    }

    #[test]
    fn a_sentence_is_complete_when_the_next_begins() {
        check(
            "Going forward ten meters. Tell me when to stop.",
            &["Going forward ten meters.", "Tell me when to stop."],
        );
        check("Really?! Yes.", &["Really?!", "Yes."]);
        check("one\ntwo", &["one", "two"]);
        check("", &[]);
        check(" ... ", &[]);
    }

    #[test]
    fn dots_inside_of_sentences_do_not_end_them() {
        check("It is 3.5 meters to Dr. J. Smith, e.g. Go.", &["It is 3.5 meters to Dr. J. Smith, e.g. Go."]);
        check("See example.org for more. Bye.", &["See example.org for more.", "Bye."]);
    }

    #[test]
    fn endless_sentences_are_cut_between_words() {
        let text = "word ".repeat(100);
        let mut chunker = Chunker::default();
        let mut chunks = chunker.push(&text);
        chunks.extend(chunker.finish());
        assert!(chunks.iter().all(|chunk| chunk.chars().count() <= MAX_CHARS && !chunk.ends_with("wor")));
        assert_eq!(chunks.join(" "), text.trim());
        check(&"x".repeat(MAX_CHARS + 1), &[&"x".repeat(MAX_CHARS), "x"]);
    }
}

//! Text as flite can take it: ASCII, without runs that overflow its buffers, one sentence at a time, and with the
//! way back to the text as it was written.
//!
//! Pure. Not here: how a word sounds; numbers, abbreviations and spelling are flite's own.

use std::{
    ffi::{CStr, CString},
    ops::Range,
};

/// One sentence that is safe to give to flite: ASCII, and no run without white space longer than [`MAX_TOKEN`].
///
/// flite grows its buffer for trailing punctuation once, by a fifth, whatever the run's length
/// (`get_token_postpunctuation` in `cst_tokenstream.c`), so a thousand exclamation marks overwrite its heap
/// (AddressSanitizer on flite 2.2). It also takes a long run apart by recursion.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sayable(CString);

impl Sayable {
    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// Longest run without white space that reaches flite, in bytes; longer ones are cut in two.
const MAX_TOKEN: usize = 80;

/// From here on a sentence ends at a comma too, by [`weight`]. All voices but kal16 model a whole sentence before its
/// first sample, which takes 0.3 ms per letter (measured, README), so this keeps the wait near 35 ms.
const LONG_SENTENCE: usize = 120;

/// Here a sentence ends wherever a word does, by [`weight`].
const MAX_SENTENCE: usize = 240;

/// A text made ready: ASCII, each byte of which knows the character that it came from.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    written: &'a str,
    ascii: String,
    /// For each byte of `ascii`, where its character starts in `written`.
    origins: Vec<usize>,
}

impl<'a> Script<'a> {
    /// Puts `written` into ASCII: typographic signs and accented letters become their plain relatives, a few symbols
    /// become words, the rest becomes a gap. Control characters, NUL among them, are left out.
    pub(crate) fn new(written: &'a str) -> Self {
        let mut script = Script { written, ascii: String::with_capacity(written.len()), origins: Vec::new() };
        let mut characters = written.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            match character {
                '\t' | '\n' | '\r' | ' '..='~' => {
                    // In "$1,500 million" flite takes the comma for a digit and looks it up out of bounds
                    // (`en_exp_number` in `us_expand.c`, AddressSanitizer).
                    let next_is_digit = characters.peek().is_some_and(|(_, next)| next.is_ascii_digit());
                    if !(character == ',' && next_is_digit && script.is_in_amount()) {
                        script.push(at, character);
                    }
                }
                '—' | '―' => {
                    // A dash between words is a pause, which to flite a comma is, if it is glued to a word.
                    if script.ascii.ends_with(' ') {
                        script.ascii.pop();
                        script.origins.pop();
                    }
                    script.push_str(at, ", ");
                }
                '！'..='～' => {
                    // Full-width forms stand in the order of ASCII.
                    let plain = char::from_u32(u32::from(character) - 0xFEE0);
                    script.push(at, plain.unwrap_or(' '));
                }
                _ => script.push_str(at, plain(character)),
            }
        }
        script
    }

    /// The sentences in order, each with its place in the ASCII text; those without a sound are left out.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = (Range<usize>, Sayable)> {
        split(&self.ascii).into_iter().filter_map(|range| {
            let sentence = &self.ascii[range.clone()];
            if sentence.bytes().all(|byte| byte.is_ascii_whitespace() || SILENT.contains(&byte)) {
                return None;
            }
            let sentence = CString::new(sentence).expect("`new` keeps NUL out");
            Some((range, Sayable(sentence)))
        })
    }

    /// Finds a token of flite's in `within`, a part of the ASCII text.
    pub(crate) fn find(&self, token: &str, within: Range<usize>) -> Option<Range<usize>> {
        let at = within.start + self.ascii[within].find(token)?;
        Some(at..at + token.len())
    }

    /// The place, in the text as written, of a part of the ASCII text.
    pub(crate) fn place(&self, ascii: Range<usize>) -> Range<usize> {
        let end = |at: usize| self.origins.get(at).copied().unwrap_or(self.written.len());
        let start = end(ascii.start);
        if ascii.is_empty() {
            return start..start;
        }
        // A character can have become several bytes: then its own end counts. Else what was left out before the next
        // character goes with the word, like the accents of "e\u{301}".
        let last = self.origins[ascii.end - 1];
        let last_end = last + self.written[last..].chars().next().map_or(0, char::len_utf8);
        start..end(ascii.end).max(last_end)
    }

    /// The text of a part of the ASCII text, as written.
    pub(crate) fn spelling(&self, place: Range<usize>) -> String {
        self.written[place].chars().filter(|character| !character.is_control()).collect()
    }

    /// Whether the run at the end of the ASCII text starts like an amount of dollars.
    fn is_in_amount(&self) -> bool {
        let run = self.ascii.rsplit(|character: char| character.is_ascii_whitespace()).next();
        run.is_some_and(|run| run.contains('$'))
    }

    fn push_str(&mut self, origin: usize, plain: &str) {
        for character in plain.chars() {
            self.push(origin, character);
        }
    }

    fn push(&mut self, origin: usize, plain: char) {
        debug_assert!(plain.is_ascii() && plain != '\0', "{plain:?} is for flite");
        let tail = &self.ascii.as_bytes()[self.ascii.len().saturating_sub(MAX_TOKEN)..];
        let is_full = tail.len() == MAX_TOKEN && !tail.iter().any(u8::is_ascii_whitespace);
        if is_full && !plain.is_ascii_whitespace() {
            self.ascii.push(' ');
            self.origins.push(origin);
        }
        self.ascii.push(plain);
        self.origins.push(origin);
    }
}

/// What flite takes for punctuation, and what its lexicon has without a sound (`cmu_lex.c`, `addenda`).
const SILENT: &[u8] = b"\"'`.,:;!?(){}[]-<>";

/// What flite cuts off the end of a token (`usenglish.c`, `us_english_punctuation`).
const PUNCTUATION: &[char] = &['"', '\'', '`', '.', ',', ':', ';', '!', '?', '(', ')', '{', '}', '[', ']'];

/// Cuts where flite's own reader of files does (`default_utt_break` in `cst_synth.c`), and where a sentence would
/// be long in coming.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut sentence_start = 0;
    let mut sentence_weight = 0;
    let mut previous: Option<Range<usize>> = None;
    let mut at = 0;
    while let Some(gap) = text[at..].find(|character: char| !character.is_ascii_whitespace()) {
        let start = at + gap;
        let end = text[start..]
            .find(|character: char| character.is_ascii_whitespace())
            .map_or(text.len(), |length| start + length);
        if let Some(previous) = previous {
            let gap = &text[previous.end..start];
            let with_next = sentence_weight + weight(&text[previous.end..end]);
            if ends_sentence(&text[previous], gap, &text[start..end], with_next) {
                sentences.push(sentence_start..start);
                sentence_start = start;
                sentence_weight = weight(&text[start..end]);
            } else {
                sentence_weight = with_next;
            }
        } else {
            sentence_weight = weight(&text[start..end]);
        }
        previous = Some(start..end);
        at = end;
    }
    if sentence_start < text.len() {
        sentences.push(sentence_start..text.len());
    }
    sentences
}

/// How long a text takes to say, in letters: a digit or a symbol is said as a word.
fn weight(text: &str) -> usize {
    let symbol = |byte: u8| byte.is_ascii_digit() || (byte.is_ascii_punctuation() && !SILENT.contains(&byte));
    text.bytes().map(|byte| if symbol(byte) { 5 } else { 1 }).sum()
}

/// Whether a sentence ends between two tokens; with the second it would have `weight`.
fn ends_sentence(token: &str, gap: &str, next: &str, weight: usize) -> bool {
    let word = token.trim_end_matches(PUNCTUATION);
    let punctuation = &token[word.len()..];
    let next_is_capital = next.starts_with(|character: char| character.is_ascii_uppercase());
    let is_abbreviation = word.ends_with(|character: char| character.is_ascii_uppercase())
        || (word.len() < 4 && word.starts_with(|character: char| character.is_ascii_uppercase()));
    gap.matches('\n').count() > 1
        || punctuation.contains([':', '?', '!'])
        || (punctuation.contains('.') && next_is_capital && (gap.len() > 1 || !is_abbreviation))
        || (weight > LONG_SENTENCE && punctuation.contains([',', ';', '.']))
        || weight > MAX_SENTENCE
}

/// The ASCII for a character that is none: nothing for a mark that changes its neighbour, a space for the unsayable.
fn plain(character: char) -> &'static str {
    match character {
        // Combining accents, zero-width characters, soft hyphen, variation selectors.
        '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}' => "",
        '\u{FE00}'..='\u{FE0F}' => "",
        '\u{2028}' | '\u{2029}' => "\n\n",
        '\u{85}' => "\n",
        control if control.is_control() => "",
        '‘' | '’' | '‚' | '‛' | '′' | 'ʼ' | '´' | '‹' | '›' => "'",
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' => "\"",
        '‐' | '‑' | '‒' | '–' | '−' => "-",
        '…' => "...",
        '¿' | '¡' => "",
        'À' | 'Á' | 'Â' | 'Ã' | 'Ä' | 'Å' | 'Ā' | 'Ă' | 'Ą' => "A",
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' | 'ª' => "a",
        'Ç' | 'Ć' | 'Ĉ' | 'Ċ' | 'Č' => "C",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'Ď' | 'Đ' | 'Ð' => "D",
        'ď' | 'đ' | 'ð' => "d",
        'È' | 'É' | 'Ê' | 'Ë' | 'Ē' | 'Ĕ' | 'Ė' | 'Ę' | 'Ě' => "E",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'Ĝ' | 'Ğ' | 'Ġ' | 'Ģ' => "G",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'Ĥ' | 'Ħ' => "H",
        'ĥ' | 'ħ' => "h",
        'Ì' | 'Í' | 'Î' | 'Ï' | 'Ĩ' | 'Ī' | 'Ĭ' | 'Į' | 'İ' => "I",
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'Ĵ' => "J",
        'ĵ' => "j",
        'Ķ' => "K",
        'ķ' => "k",
        'Ĺ' | 'Ļ' | 'Ľ' | 'Ł' => "L",
        'ĺ' | 'ļ' | 'ľ' | 'ł' => "l",
        'Ñ' | 'Ń' | 'Ņ' | 'Ň' => "N",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'Ò' | 'Ó' | 'Ô' | 'Õ' | 'Ö' | 'Ø' | 'Ō' | 'Ŏ' | 'Ő' => "O",
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'º' => "o",
        'Ŕ' | 'Ŗ' | 'Ř' => "R",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'Ś' | 'Ŝ' | 'Ş' | 'Š' | 'Ș' => "S",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'Ţ' | 'Ť' | 'Ț' => "T",
        'ţ' | 'ť' | 'ț' => "t",
        'Ù' | 'Ú' | 'Û' | 'Ü' | 'Ũ' | 'Ū' | 'Ŭ' | 'Ů' | 'Ű' | 'Ų' => "U",
        'ù' | 'ú' | 'û' | 'ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'Ŵ' => "W",
        'ŵ' => "w",
        'Ý' | 'Ÿ' | 'Ŷ' => "Y",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'Ź' | 'Ż' | 'Ž' => "Z",
        'ź' | 'ż' | 'ž' => "z",
        'Æ' => "Ae",
        'æ' => "ae",
        'Œ' => "Oe",
        'œ' => "oe",
        'ß' => "ss",
        'Þ' => "Th",
        'þ' => "th",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        '€' => " euro ",
        '£' => " pound ",
        '¥' => " yen ",
        '¢' => " cent ",
        '°' => " degree ",
        '×' => " times ",
        '÷' => " divided by ",
        '±' => " plus or minus ",
        '≈' => " about ",
        '≤' => " at most ",
        '≥' => " at least ",
        '½' => " 1/2 ",
        '¼' => " 1/4 ",
        '¾' => " 3/4 ",
        '№' => " number ",
        _ => " ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ascii(written: &str, want: &str) {
        assert_eq!(Script::new(written).ascii, want);
    }

    #[test]
    fn text_becomes_ascii_that_sounds_alike() {
        check_ascii("plain, text!", "plain, text!");
        check_ascii("“It’s” naïve – Zoë’s café…", "\"It's\" naive - Zoe's cafe...");
        check_ascii("cafe\u{301}", "cafe");
        check_ascii("wait — what—now", "wait,  what, now");
        check_ascii("nul\0 and\u{7} bell", "nul and bell");
        check_ascii("20°, 5€", "20 degree , 5 euro ");
        check_ascii("да 世界😀hi", "      hi");
        check_ascii("ＡＢＣ！", "ABC!");
    }

    #[test]
    fn amounts_lose_their_commas_and_nothing_else_does() {
        check_ascii("$1,500 million, 1,500", "$1500 million, 1,500");
        check_ascii("$1, 2", "$1, 2");
    }

    #[track_caller]
    fn check_sentences(written: &str, want: &[&str]) {
        let script = Script::new(written);
        let sentences: Vec<&str> =
            script.sentences().map(|(range, _)| script.ascii[range].trim_end()).collect();
        assert_eq!(sentences, want);
    }

    #[test]
    fn sentences_end_where_flite_ends_them() {
        check_sentences("", &[]);
        check_sentences(" \n ... \n\n - !", &[]);
        check_sentences("First. Then two? three! Four", &["First.", "Then two?", "three!", "Four"]);
        // flite takes a short word with a capital for an abbreviation.
        check_sentences("Yes. I do.", &["Yes. I do."]);
        check_sentences("Dr. Smith met J. Moore. He left.", &["Dr. Smith met J. Moore.", "He left."]);
        check_sentences("It is 3.5 e.g. here.", &["It is 3.5 e.g. here."]);
        check_sentences("a title\n\nits text\nand more", &["a title", "its text\nand more"]);
        check_sentences("(He said \"no.\") She left.", &["(He said \"no.\")", "She left."]);
    }

    #[test]
    fn endless_sentence_is_cut_at_commas_and_then_anywhere() {
        let with_commas = "some words and more, ".repeat(20);
        let script = Script::new(&with_commas);
        assert!(script.sentences().all(|(range, _)| script.ascii[range].trim_end().ends_with(',')));
        let symbols = "& 9 ".repeat(1000);
        let script = Script::new(&symbols);
        assert!(script.sentences().all(|(range, _)| range.len() <= MAX_SENTENCE / 3));
        let without = "word ".repeat(1000);
        let script = Script::new(&without);
        assert!(script.sentences().all(|(range, _)| range.len() <= MAX_SENTENCE));
        assert_eq!(script.sentences().map(|(range, _)| range.len()).sum::<usize>(), without.len());
    }

    #[test]
    fn no_run_is_longer_than_flite_bears() {
        for written in
            ["!".repeat(5000), "a".repeat(5000), "9".repeat(5000), "—".repeat(5000), "é".repeat(5000)]
        {
            let script = Script::new(&written);
            assert!(script.ascii.split_ascii_whitespace().all(|run| run.len() <= MAX_TOKEN));
            assert_eq!(script.ascii.len(), script.origins.len());
        }
    }

    #[test]
    fn words_are_given_back_as_written() {
        let written = "“Zoë’s” cafe\u{301}—20€ na\0ive";
        let script = Script::new(written);
        let mut at = 0;
        let mut back = Vec::new();
        for token in ["Zoe's", "cafe", "20", "euro", "naive"] {
            let found = script.find(token, at..script.ascii.len()).expect(token);
            at = found.end;
            back.push(script.spelling(script.place(found)));
        }
        assert_eq!(back, ["Zoë’s", "cafe\u{301}", "20", "€", "naive"]);
    }
}

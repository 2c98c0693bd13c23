//! Looks words up in a pronunciation dictionary, so that a decoder with a grammar need not hold all of it.
//!
//! Of the 134 000 words of Debian's dictionary such a decoder keeps those of its grammar: it then takes 4 MB and
//! 0.02 s instead of 25 MB and 0.09 s, and which words are missing is known beforehand.
//! Not here: dictionaries for a language model, which PocketSphinx reads itself, whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

/// What the dictionary has of some words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pronunciations {
    /// Word and phones, as the dictionary spells them; alternatives, as in `read(2)`, come behind their word.
    pub(crate) found: Vec<(String, String)>,
    /// Words that it has not, in their own spelling.
    pub(crate) missing: Vec<String>,
}

/// Looks `words` up, regardless of ASCII case, as PocketSphinx does.
///
/// # Errors
///
/// When the file cannot be read.
pub(crate) fn look_up(dictionary: &Path, words: &BTreeSet<&str>) -> std::io::Result<Pronunciations> {
    let bytes = std::fs::read(dictionary)?;
    Ok(look_up_in(&String::from_utf8_lossy(&bytes), words))
}

fn look_up_in(dictionary: &str, words: &BTreeSet<&str>) -> Pronunciations {
    let wanted: HashSet<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    // Both by lower case, so that a word that is there twice counts once: PocketSphinx spoils its list of
    // alternatives when it is given one again.
    let mut plain = BTreeMap::new();
    let mut alternatives = BTreeMap::new();
    for line in dictionary.lines() {
        // Comments, as in PocketSphinx's `dict_read`.
        if line.starts_with("##") || line.starts_with(";;") {
            continue;
        }
        let Some((word, phones)) = line.trim().split_once(char::is_whitespace) else { continue };
        let key = word.to_ascii_lowercase();
        let base = without_number(&key);
        if !wanted.contains(base) && !wanted.contains(&key) {
            continue;
        }
        let phones = phones.split_whitespace().collect::<Vec<_>>().join(" ");
        let entries = if base == key { &mut plain } else { &mut alternatives };
        entries.entry(key).or_insert_with(|| (word.to_owned(), phones));
    }
    // An alternative to nothing is of no use, and refused.
    alternatives.retain(|key, _| plain.contains_key(without_number(key)));
    let missing = words.iter().filter(|word| {
        let key = word.to_ascii_lowercase();
        !plain.contains_key(&key) && !alternatives.contains_key(&key)
    });
    Pronunciations {
        missing: missing.map(|&word| word.to_owned()).collect(),
        found: plain.into_values().chain(alternatives.into_values()).collect(),
    }
}

/// The word without the number of an alternative pronunciation: `read` for `read(2)`.
pub(crate) fn without_number(word: &str) -> &str {
    word.strip_suffix(')')
        .and_then(|word| word.rsplit_once('('))
        .filter(|(base, number)| !base.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(word, |(base, _)| base)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DICTIONARY: &str =
        "## a comment\nread(2) R IY D\nread R EH D\nReader\tR IY D  ER\nread(2) X\nlonely(2) L\nx\n";

    #[track_caller]
    fn check(words: &[&str], found: &[(&str, &str)], missing: &[&str]) {
        let got = look_up_in(DICTIONARY, &words.iter().copied().collect());
        let found: Vec<_> =
            found.iter().map(|&(word, phones)| (word.to_owned(), phones.to_owned())).collect();
        assert_eq!(
            got,
            Pronunciations { found, missing: missing.iter().map(|&word| word.to_owned()).collect() }
        );
    }

    #[test]
    fn words_are_found_with_their_alternatives() {
        check(&["read"], &[("read", "R EH D"), ("read(2)", "R IY D")], &[]);
        check(&["READER"], &[("Reader", "R IY D ER")], &[]);
        check(&["red", "Writer"], &[], &["Writer", "red"]);
        check(&["lonely", "x", "a"], &[], &["a", "lonely", "x"]);
        check(&[], &[], &[]);
    }

    #[test]
    fn numbers_are_taken_off() {
        for (word, want) in
            [("read(2)", "read"), ("a(b)", "a(b)"), ("(2)", "(2)"), ("x", "x"), ("x(12)", "x")]
        {
            assert_eq!(without_number(word), want);
        }
    }
}

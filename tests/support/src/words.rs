//! How wrong a transcript is: the word error rate, as speech recognition counts it.

/// Errors among words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WordErrors {
    /// Words that are wrong, missing or too many.
    pub errors: usize,
    /// Words that were said.
    pub words: usize,
}

impl WordErrors {
    /// Compares what was understood with what was said: the fewest words to replace, leave out or add.
    #[must_use]
    pub fn between(said: &str, understood: &str) -> Self {
        let said: Vec<String> = words(said).collect();
        let understood: Vec<String> = words(understood).collect();
        // Distances of one row of the table: from the words of `said` so far to each beginning of `understood`.
        let mut row: Vec<usize> = (0..=understood.len()).collect();
        for (position, word) in said.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], position + 1);
            for (column, other) in understood.iter().enumerate() {
                let replaced = diagonal + usize::from(word != other);
                diagonal = row[column + 1];
                row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
            }
        }
        Self { errors: row[understood.len()], words: said.len() }
    }

    /// Of each word that was said, how much of it is wrong on average.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.errors as f64 / self.words as f64
    }
}

impl std::iter::Sum for WordErrors {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            errors: sum.errors + one.errors,
            words: sum.words + one.words,
        })
    }
}

/// Words without case and without the marks around them.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, understood: &str, errors: usize) {
        let words = said.split_whitespace().count();
        assert_eq!(WordErrors::between(said, understood), WordErrors { errors, words }, "{understood}");
    }

    #[test]
    fn replaced_missing_and_added_words_count_once_each() {
        let said = "he was not an ill disposed young man";
        check(said, said, 0);
        check(said, "He was not an ill-disposed, young man.", 2);
        check(said, "he was an ill disposed young man", 1);
        check(said, "he was not an ill disposed young young man", 1);
        check(said, "", 8);
        check("", "something", 1);
        check("a b c d", "b c d e", 2);
    }
}

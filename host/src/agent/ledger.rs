//! What of a reply was heard: the one owner of that knowledge. History, transcripts and metrics come from here, so the
//! history is always a prefix of what was played. Pure.

use std::time::Duration;

use antiphon_core::event::values::WordTiming;

/// The playing of one reply.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    chunks: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    text: String,
    words: Vec<WordTiming>,
    /// Length of the audio, once all of it is there.
    length: Option<Duration>,
    played: Duration,
}

impl Ledger {
    /// Adds a chunk; chunks are numbered in the order of this call.
    pub(super) fn add(&mut self, text: &str) {
        self.chunks.push(Entry { text: text.to_owned(), ..Entry::default() });
    }

    pub(super) fn words(&mut self, chunk: usize, words: Vec<WordTiming>) {
        if let Some(entry) = self.chunks.get_mut(chunk) {
            entry.words.extend(words);
        }
    }

    /// All audio of a chunk is there; this much.
    pub(super) fn complete(&mut self, chunk: usize, length: Duration) {
        if let Some(entry) = self.chunks.get_mut(chunk) {
            entry.length = Some(length);
        }
    }

    pub(super) fn played(&mut self, chunk: usize, duration: Duration) {
        if let Some(entry) = self.chunks.get_mut(chunk) {
            entry.played += duration;
        }
    }

    pub(super) fn has_played(&self, chunk: usize) -> bool {
        self.chunks.get(chunk).is_some_and(|entry| !entry.played.is_zero())
    }

    /// How much was played in all.
    pub(super) fn played_total(&self) -> Duration {
        self.chunks.iter().map(|entry| entry.played).sum()
    }

    /// The text that was heard: whole chunks, and of the last one the words whose end was played.
    pub(super) fn heard(&self) -> String {
        let mut heard = String::new();
        for entry in &self.chunks {
            let part = entry.heard();
            if !part.is_empty() {
                if !heard.is_empty() {
                    heard.push(' ');
                }
                heard.push_str(part);
            }
            if part.len() < entry.text.len() {
                break;
            }
        }
        heard
    }
}

/// Rounding of durations on their way through rates.
const TOLERANCE: Duration = Duration::from_millis(1);

impl Entry {
    fn heard(&self) -> &str {
        if self.played.is_zero() {
            return "";
        }
        if self.length.is_some_and(|length| self.played + TOLERANCE >= length) {
            return &self.text;
        }
        if !self.words.is_empty() {
            let played_ms = self.played.as_secs_f64() * 1e3;
            let count = self.words.iter().take_while(|word| word.end_ms <= played_ms).count();
            return self.prefix_of_words(count);
        }
        // No word times: by length, and never more than was played.
        let Some(length) = self.length else { return "" };
        let share = self.played.as_secs_f64() / length.as_secs_f64();
        #[expect(
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "a share of a length, below it"
        )]
        let chars = (self.text.chars().count() as f64 * share) as usize;
        let end = self.text.char_indices().nth(chars).map_or(self.text.len(), |(at, _)| at);
        self.text[..end].rfind(char::is_whitespace).map_or("", |at| self.text[..at].trim_end())
    }

    /// The text up to the end of its n-th word. Synthesisers spell numbers out, so words are counted, not compared,
    /// where their number agrees; otherwise the share of words is taken, rounded down.
    fn prefix_of_words(&self, count: usize) -> &str {
        let written = self.text.split_whitespace().count();
        let heard = count * written / self.words.len().max(1);
        let mut end = 0;
        for (number, word) in self.text.split_whitespace().enumerate() {
            if number == heard {
                break;
            }
            let start = end + self.text[end..].find(word).expect("`split_whitespace` found it there");
            end = start + word.len();
        }
        &self.text[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(word: &str, start_ms: f64, end_ms: f64) -> WordTiming {
        WordTiming { word: word.into(), start_ms, end_ms }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_words_whose_end_was_played_are_heard() {
        let mut ledger = Ledger::default();
        ledger.add("Going forward ten meters.");
        ledger.add("Bye.");
        ledger.words(
            0,
            vec![
                word("going", 0.0, 200.0),
                word("forward", 200.0, 600.0),
                word("ten", 600.0, 800.0),
                word("meters", 800.0, 1300.0),
            ],
        );
        assert_eq!(ledger.heard(), "");
        ledger.played(0, ms(199));
        assert_eq!(ledger.heard(), "");
        ledger.played(0, ms(1));
        assert_eq!(ledger.heard(), "Going");
        ledger.played(0, ms(599));
        assert_eq!(ledger.heard(), "Going forward");
        ledger.played(0, ms(501));
        assert_eq!(ledger.heard(), "Going forward ten meters.");
        ledger.complete(0, ms(1400));
        ledger.played(0, ms(100));
        ledger.played(1, ms(10));
        assert_eq!(ledger.heard(), "Going forward ten meters.");
        ledger.complete(1, ms(10));
        assert_eq!(ledger.heard(), "Going forward ten meters. Bye.");
        assert_eq!(ledger.played_total(), ms(1410));
    }

    #[test]
    fn without_word_times_the_share_is_rounded_down_to_a_word() {
        let mut ledger = Ledger::default();
        ledger.add("one two three four");
        ledger.played(0, ms(500));
        assert_eq!(ledger.heard(), "", "the length is not known yet");
        ledger.complete(0, ms(1000));
        assert_eq!(ledger.heard(), "one two");
    }
}

//! Speech from text, piece by piece, with the time of each word.
//!
//! Any number of threads may speak at once, with the same voice or with others: `sys.rs` says why.
//! Not here: events, sessions, settings and pacing. A piece comes when it is made, long before it would be heard.

use crate::{
    sys::{Chunk, Flite, PITCH_HZ, SPEED, VoiceHandle},
    text::Script,
};
use std::{
    ops::{ControlFlow, Range},
    sync::OnceLock,
    time::Duration,
};

pub use crate::{
    sys::LoadError,
    voice::{UnknownVoice, Voice},
};

/// flite, opened. Cheap to clone: all engines of a process share one library and its voices, for as long as it runs.
#[derive(Clone, Copy)]
pub struct Engine {
    flite: &'static Flite,
}

/// How to speak. The default is the voice's own way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Times the voice's own speed, `0.5..=2.0`.
    pub speed: f32,
    /// Mean pitch, `50.0..=500.0`; `None` is the voice's own. See [`Voice::heeds_pitch`].
    pub pitch_hz: Option<f32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { speed: 1.0, pitch_hz: None }
    }
}

/// The next samples, lent for the length of the call.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Mono, full scale is `i16::MIN..=i16::MAX`. At least 20 ms, except at the end of a sentence.
    pub samples: &'a [i16],
    /// Samples per second; the same for all pieces of a synthesis.
    pub sample_rate_hz: u32,
    /// The words of the sentence that starts with this piece, in order, none of which has been heard yet. Empty for
    /// all other pieces of the sentence.
    pub words: Vec<Word>,
}

/// A word and when it is heard. A number or an abbreviation is one word, however many are spoken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As in the text that was to be spoken, without punctuation around it.
    pub text: String,
    /// Where in that text it stands, in bytes.
    pub bytes: Range<usize>,
    /// When it starts, counted from the first sample of the synthesis.
    pub start: Duration,
    /// When it ends; at most the start of the next word.
    pub end: Duration,
}

/// What a synthesis came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Samples handed over, of all pieces.
    pub samples: u64,
    /// How long these sound.
    pub duration: Duration,
    /// Whether the sink broke off; what it had not received then is not made.
    pub is_stopped: bool,
}

/// Why nothing, or no more, was spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthesisError {
    /// [`Options::speed`] is out of range.
    #[error("speed has to be within 0.5 and 2.0 times the voice's own, found {speed}")]
    Speed {
        /// What was asked for.
        speed: f32,
    },
    /// [`Options::pitch_hz`] is out of range.
    #[error("pitch has to be within 50 and 500 Hz, found {pitch_hz}")]
    Pitch {
        /// What was asked for.
        pitch_hz: f32,
    },
    /// The voice could not be loaded.
    #[error("voice {voice} is not to be had")]
    Load {
        /// What was asked for.
        voice: Voice,
        /// What is missing.
        source: LoadError,
    },
    /// flite gave up on a sentence; no text is known to make it.
    #[error("flite made no speech of {sentence:?}")]
    Refused {
        /// The sentence, as it was written.
        sentence: String,
    },
}

impl Engine {
    /// Opens flite, the first time; voices are opened when they are first used.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when it is not installed; a later call tries again.
    pub fn load() -> Result<Engine, LoadError> {
        static FLITE: OnceLock<Flite> = OnceLock::new();
        if let Some(flite) = FLITE.get() {
            return Ok(Engine { flite });
        }
        // Two threads may both come here; then one opened flite in vain, which costs nothing that is kept.
        let flite = Flite::open()?;
        Ok(Engine { flite: FLITE.get_or_init(|| flite) })
    }

    /// Opens a voice ahead of its first use, which takes about a millisecond.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the voice is not installed.
    pub fn prepare(&self, voice: Voice) -> Result<(), LoadError> {
        self.flite.voice(voice).map(drop)
    }

    /// Speaks `text`, sentence by sentence, on the calling thread, and hands each piece to `sink` as soon as it is
    /// made. When `sink` breaks, it is not called again, and the call returns.
    ///
    /// Text can be long and need not be ASCII, but flite reads English only: accents are dropped, characters of
    /// other scripts are passed over. A text without a word gives no piece.
    ///
    /// # Errors
    ///
    /// [`SynthesisError`] when the options are out of range or the voice is not installed, before the first piece.
    ///
    /// # Panics
    ///
    /// With the panic of `sink`.
    pub fn synthesize(
        &self,
        voice: Voice,
        text: &str,
        options: &Options,
        sink: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Summary, SynthesisError> {
        if !SPEED.contains(&options.speed) {
            return Err(SynthesisError::Speed { speed: options.speed });
        }
        if let Some(pitch_hz) = options.pitch_hz
            && !PITCH_HZ.contains(&pitch_hz)
        {
            return Err(SynthesisError::Pitch { pitch_hz });
        }
        let handle = self.flite.voice(voice).map_err(|source| SynthesisError::Load { voice, source })?;
        self.speak(handle, &Script::new(text), options, sink)
    }

    fn speak(
        &self,
        voice: VoiceHandle,
        script: &Script<'_>,
        options: &Options,
        sink: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Summary, SynthesisError> {
        let mut summary = Summary { samples: 0, duration: Duration::ZERO, is_stopped: false };
        for (range, sentence) in script.sentences() {
            let sentence_start = summary.duration;
            let mut hand_on = |chunk: Chunk<'_>| {
                summary.samples += chunk.samples.len() as u64;
                summary.duration = duration(summary.samples, chunk.sample_rate_hz);
                let flow = sink(Piece {
                    samples: chunk.samples,
                    sample_rate_hz: chunk.sample_rate_hz,
                    words: words(script, range.clone(), sentence_start, &chunk),
                });
                summary.is_stopped = flow.is_break();
                flow
            };
            let spoken = self.flite.speak(voice, &sentence, options.speed, options.pitch_hz, &mut hand_on);
            if summary.is_stopped {
                break;
            }
            spoken.map_err(|_| SynthesisError::Refused { sentence: script.spelling(script.place(range)) })?;
        }
        Ok(summary)
    }
}

/// Finds the words of a chunk's tokens in the text as written. flite works on the ASCII text from left to right, so
/// each token is looked for behind the one before.
fn words(script: &Script<'_>, sentence: Range<usize>, offset: Duration, chunk: &Chunk<'_>) -> Vec<Word> {
    let mut at = sentence.start;
    let mut earliest = Duration::ZERO;
    chunk
        .tokens
        .iter()
        .map(|token| {
            let place = match script.find(&token.name, at..sentence.end) {
                Some(found) => {
                    at = found.end;
                    script.place(found)
                }
                // Not known to happen; the word then has flite's spelling and no length in the text.
                None => script.place(at..at),
            };
            let text = if place.is_empty() { token.name.clone() } else { script.spelling(place.clone()) };
            let start = token.start.max(earliest);
            let end = token.end.max(start);
            earliest = end;
            Word { text, bytes: place, start: offset + start, end: offset + end }
        })
        .collect()
}

fn duration(samples: u64, sample_rate_hz: u32) -> Duration {
    const NANOS_PER_SECOND: u64 = 1_000_000_000;
    match u64::from(sample_rate_hz) {
        0 => Duration::ZERO,
        rate => {
            Duration::from_secs(samples / rate)
                + Duration::from_nanos(samples % rate * NANOS_PER_SECOND / rate)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        thread,
    };

    const TEXT: &str = "Hello there, how are you today? I paid $5.20 to Dr. Smith.";

    struct Heard {
        samples: Vec<i16>,
        words: Vec<Word>,
        pieces: usize,
        summary: Summary,
    }

    #[track_caller]
    fn engine() -> Engine {
        Engine::load().unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn hear(voice: Voice, text: &str, options: &Options) -> Heard {
        let (mut samples, mut words, mut pieces) = (Vec::new(), Vec::new(), 0);
        let summary = engine()
            .synthesize(voice, text, options, &mut |piece| {
                assert_eq!(piece.sample_rate_hz, voice.sample_rate_hz());
                samples.extend_from_slice(piece.samples);
                words.extend(piece.words);
                pieces += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(summary.samples, samples.len() as u64);
        assert!(!summary.is_stopped);
        Heard { samples, words, pieces, summary }
    }

    /// Speech has silence and sound: neither noise at full scale nor nothing.
    #[track_caller]
    fn check_sounds_like_speech(samples: &[i16]) {
        let rms = |samples: &[i16]| {
            let power: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
            (power / samples.len() as f64).sqrt()
        };
        let whole = rms(samples);
        assert!((300.0..12_000.0).contains(&whole), "root mean square is {whole}");
        let quiet = samples.chunks(160).filter(|&chunk| rms(chunk) < whole / 4.0).count();
        assert!(quiet * 160 > samples.len() / 20, "no pause in it");
    }

    #[test]
    fn each_voice_speaks() {
        for voice in Voice::ALL {
            let heard = hear(voice, TEXT, &Options::default());
            let seconds = heard.summary.duration.as_secs_f32();
            assert!((3.0..8.0).contains(&seconds), "{voice} takes {seconds} s");
            assert!(heard.pieces > 100, "{voice} comes in {} pieces", heard.pieces);
            check_sounds_like_speech(&heard.samples);
        }
    }

    #[test]
    fn words_come_in_order_and_within_the_audio() {
        for voice in Voice::ALL {
            let heard = hear(voice, TEXT, &Options::default());
            let texts: Vec<&str> = heard.words.iter().map(|word| word.text.as_str()).collect();
            assert_eq!(
                texts,
                ["Hello", "there", "how", "are", "you", "today", "I", "paid", "$5.20", "to", "Dr", "Smith"]
            );
            let mut heard_until = Duration::ZERO;
            for word in &heard.words {
                assert_eq!(&TEXT[word.bytes.clone()], word.text);
                assert!(word.start >= heard_until && word.end > word.start, "{voice}: {word:?}");
                heard_until = word.end;
            }
            assert!(heard_until <= heard.summary.duration, "{voice} ends {heard_until:?}");
        }
    }

    #[test]
    fn words_are_where_the_sound_is() {
        // The pause between the sentences is silent, the words around it are not.
        for voice in Voice::ALL {
            let heard = hear(voice, "Good morning. Go away now.", &Options::default());
            let power = |from: Duration, to: Duration| {
                let index = |at: Duration| (at.as_secs_f64() * 16_000.0) as usize;
                let samples = &heard.samples[index(from)..index(to)];
                samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / samples.len() as f64
            };
            let (before, after) = (&heard.words[1], &heard.words[2]);
            let pause = power(before.end + Duration::from_millis(50), after.start);
            assert!(power(before.start, before.end) > 20.0 * pause, "{voice}");
            assert!(power(after.start, after.end) > 20.0 * pause, "{voice}");
        }
    }

    #[test]
    fn words_are_spelled_as_in_the_text() {
        let text = "“Zoë’s” naïve café—it’s 20°…";
        let heard = hear(Voice::Kal16, text, &Options::default());
        let texts: Vec<&str> = heard.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["Zoë’s", "naïve", "café", "it’s", "20", "°"]);
        assert!(heard.words.iter().all(|word| text[word.bytes.clone()] == word.text));
    }

    #[test]
    fn words_of_a_sentence_come_with_its_first_piece() {
        let mut first_pieces = Vec::new();
        let mut samples = 0;
        engine()
            .synthesize(Voice::Slt, TEXT, &Options::default(), &mut |piece| {
                if let Some(word) = piece.words.first() {
                    assert!(word.start >= duration(samples, piece.sample_rate_hz));
                    first_pieces.push(piece.words.len());
                }
                samples += piece.samples.len() as u64;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(first_pieces, [6, 6]);
    }

    #[test]
    fn break_in_the_middle_stops_early() {
        for voice in Voice::ALL {
            let text = "one two three four five six seven eight nine ten. ".repeat(100);
            let mut pieces = 0;
            let summary = engine()
                .synthesize(voice, &text, &Options::default(), &mut |_| {
                    pieces += 1;
                    if pieces < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .unwrap();
            assert!(summary.is_stopped);
            assert_eq!(pieces, 5);
            assert!(summary.duration < Duration::from_millis(500), "{voice} made {summary:?}");
        }
    }

    #[test]
    fn panic_of_the_sink_passes_through_and_the_voice_survives() {
        for voice in Voice::ALL {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                engine().synthesize(voice, TEXT, &Options::default(), &mut |_| panic!("sink is full"))
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"sink is full"));
            hear(voice, "still here", &Options::default());
        }
    }

    #[test]
    fn nothing_to_say_gives_no_piece() {
        for text in ["", " \n\t", "...", "\0", "— !", "世界", "😀"] {
            let heard = hear(Voice::Slt, text, &Options::default());
            assert_eq!((heard.pieces, heard.samples.len()), (0, 0), "for {text:?}");
        }
    }

    #[test]
    fn hostile_text_is_spoken_without_harm() {
        let texts = [
            "na\0me".to_owned(),
            "!".repeat(2000) + "a" + &"!".repeat(2000),
            "x".repeat(400),
            "9".repeat(400),
            "a-".repeat(300),
            "$1,500 million $,,, million $1,,0 billion".to_owned(),
            (1..=255).map(|byte| format!("{0}{0} ", char::from(byte))).collect(),
        ];
        for text in &texts {
            for voice in [Voice::Kal16, Voice::Slt] {
                assert!(!hear(voice, text, &Options { speed: 2.0, pitch_hz: None }).samples.is_empty());
            }
        }
    }

    #[test]
    fn long_text_is_spoken_whole() {
        let text = "She sells sea shells, by the sea shore. ".repeat(2560);
        assert!(text.len() > 100_000);
        let heard = hear(Voice::Kal16, &text, &Options::default());
        assert_eq!(heard.words.len(), 8 * 2560);
        assert!(heard.words.is_sorted_by(|one, next| one.end <= next.start));
        assert!(heard.words.last().unwrap().end <= heard.summary.duration);
    }

    #[test]
    fn speed_and_pitch_are_heeded() {
        for voice in Voice::ALL {
            let seconds =
                |speed| hear(voice, TEXT, &Options { speed, pitch_hz: None }).summary.duration.as_secs_f32();
            let (slow, own, fast) = (seconds(0.5), seconds(1.0), seconds(2.0));
            assert!((1.8..2.2).contains(&(slow / own)), "{voice} at half speed: {slow} s of {own} s");
            assert!((1.7..2.2).contains(&(own / fast)), "{voice} at double speed: {fast} s of {own} s");

            if !voice.heeds_pitch() {
                continue;
            }
            let pitch = |pitch_hz| {
                pitch_of(
                    &hear(voice, "Aah, oh no.", &Options { speed: 1.0, pitch_hz: Some(pitch_hz) }).samples,
                )
            };
            let (low, high) = (pitch(90.0), pitch(180.0));
            assert!((1.7..2.4).contains(&(high / low)), "{voice}: {high} Hz of {low} Hz");
        }
    }

    /// Median over loud frames of the lag at which the signal resembles itself most.
    fn pitch_of(samples: &[i16]) -> f32 {
        let mut pitches: Vec<f32> = samples
            .chunks_exact(1024)
            .filter(|frame| frame.iter().map(|&sample| f32::from(sample).abs()).sum::<f32>() > 1024.0 * 800.0)
            .map(|frame| {
                let similarity = |lag: usize| -> f32 {
                    let pairs = frame[..640].iter().zip(&frame[lag..]);
                    pairs.map(|(&one, &other)| f32::from(one) * f32::from(other)).sum()
                };
                let lag = (60..=300).max_by(|&a, &b| similarity(a).total_cmp(&similarity(b)));
                16_000.0 / lag.unwrap() as f32
            })
            .collect();
        pitches.sort_by(f32::total_cmp);
        pitches[pitches.len() / 2]
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let refuse = |speed, pitch_hz| {
            let options = Options { speed, pitch_hz };
            let error = engine().synthesize(Voice::Kal16, TEXT, &options, &mut |_| unreachable!());
            error.unwrap_err().to_string()
        };
        assert_eq!(refuse(0.4, None), "speed has to be within 0.5 and 2.0 times the voice's own, found 0.4");
        assert!(refuse(f32::NAN, None).contains("NaN"));
        assert_eq!(refuse(1.0, Some(20.0)), "pitch has to be within 50 and 500 Hz, found 20");
    }

    #[test]
    fn four_threads_do_not_mix_their_options() {
        // kal16 gives the same samples each time, the others at least as many.
        let cases: Vec<(Voice, Options)> = [0.6, 0.9, 1.2, 1.8]
            .into_iter()
            .flat_map(|speed| {
                Voice::ALL.map(|voice| (voice, Options { speed, pitch_hz: Some(speed * 100.0) }))
            })
            .collect();
        let alone: Vec<Vec<i16>> =
            cases.iter().map(|(voice, options)| hear(*voice, TEXT, options).samples).collect();
        thread::scope(|scope| {
            for offset in 0..4 {
                let (cases, alone) = (&cases, &alone);
                scope.spawn(move || {
                    for index in 0..cases.len() {
                        let index = (index + offset * 5) % cases.len();
                        let (voice, options) = cases[index];
                        let together = hear(voice, TEXT, &options).samples;
                        check_sounds_like_speech(&together);
                        assert_eq!(together.len(), alone[index].len(), "{voice} {options:?}");
                        assert!(voice != Voice::Kal16 || together == alone[index], "{options:?}");
                    }
                });
            }
        });
    }
}

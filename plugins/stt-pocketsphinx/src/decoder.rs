//! One utterance after the other: samples in, words with times and confidences out.
//!
//! An utterance is a stretch of speech that somebody else cut out, with some silence around it. A decoder keeps
//! nothing from one to the next: the same samples give the same words, whatever came before and however they are
//! divided between calls.
//!
//! That takes some care, because of the *cepstral mean*: what microphone, room and level have in common over time,
//! which the decoder subtracts. PocketSphinx starts with the mean that the model names and takes what it heard into
//! the next utterance, so a first utterance comes out bad, and the next of a decoder depends on who spoke before.
//! Here the mean is that of the utterance itself: when 1 s and when 2 s of it are there, or at its end if that is
//! earlier, the mean is computed and that much audio is decoded again. Errors on 296 words (LibriVox, cards and two
//! more recordings, and five synthetic voices, cut with 0.25 s of silence before and 0.6 s after): 85 with the model's
//! mean for each utterance, 80 with PocketSphinx's way, 64 with the mean of the whole utterance, known beforehand, 58
//! with this. It costs at most 3 s of audio decoded once more, and none of that at the end of an utterance longer
//! than 2 s.
//!
//! Not here: threads, see [`pool`](crate::pool); and telling speech from silence, which is a plugin of its own.

use crate::{
    dictionary::{self, without_number},
    grammar::{Grammar, GrammarError},
    sys,
};
use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::sys::{Library, LoadError};

/// Samples per second of all audio here; one channel.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// Where the models are and what may be said. The default is Debian's American English, whatever is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Directory of the acoustic model, for 16 kHz. `None`: that of Debian's `pocketsphinx-en-us`.
    pub model: Option<PathBuf>,
    /// File with how likely words follow each other: ARPA, or what PocketSphinx makes of it. `None`: Debian's, as
    /// above. Not read when there is a grammar.
    pub language_model: Option<PathBuf>,
    /// File with the pronunciation of each word. `None`: Debian's, as above.
    pub dictionary: Option<PathBuf>,
    /// Text of a JSGF grammar: only what it says can be understood, and far better so.
    pub grammar: Option<String>,
    /// Decode everything only once, with the mean that the model names: less work, more errors.
    pub is_single_pass: bool,
}

/// Why there is no decoder, or no words from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory of a model is not there.
    #[error(
        "no {role} at {} (wanted {wanted}); the Debian package `{PACKAGE}` has one for American English: \
         `apt-get install {PACKAGE}`",
        path.display()
    )]
    Missing {
        /// Which part of the model.
        role: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// Why it could not be read.
        source: io::Error,
    },
    /// A file is there, and is something else.
    #[error(
        "{} is not a usable {role} (wanted {wanted}); the Debian package `{PACKAGE}` has one for American English: \
         `apt-get install {PACKAGE}`",
        path.display()
    )]
    Unusable {
        /// Which part of the model.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// The acoustic model is for telephones, or the like.
    #[error("the acoustic model {} is for {found_hz} Hz, audio has {SAMPLE_RATE_HZ} Hz", path.display())]
    SampleRate {
        /// Directory of the model.
        path: PathBuf,
        /// Samples per second that it is for.
        found_hz: u32,
    },
    /// The grammar has a mistake.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// The grammar says words that have no pronunciation.
    #[error("{} has no pronunciation for {} of the grammar: {}", dictionary.display(), plural(words), words.join(", "))]
    UnknownWords {
        /// The words, as the grammar spells them.
        words: Vec<String>,
        /// File that lacks them.
        dictionary: PathBuf,
    },
    /// The dictionary uses a sound that the acoustic model does not know.
    #[error("{} says `{word}` as `{phones}`, which the acoustic model does not know", dictionary.display())]
    Pronunciation {
        /// The word.
        word: String,
        /// Its phones.
        phones: String,
        /// File with the word.
        dictionary: PathBuf,
    },
    /// PocketSphinx refused the models, for a reason that it only logs.
    #[error(
        "PocketSphinx cannot use these models; `{command}` (of the Debian package `pocketsphinx`) shows why"
    )]
    Models {
        /// Command that does the same and shows the log.
        command: String,
    },
    /// PocketSphinx refused a grammar in which this plugin found no mistake.
    #[error("PocketSphinx refused the grammar")]
    GrammarRefused,
    /// The search came to no end. The decoder is as good as before for the next utterance.
    #[error("PocketSphinx failed in the middle of an utterance")]
    Search,
}

/// What was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hypothesis {
    /// The words, with spaces between; empty when there are none, as for an utterance that the grammar does not have.
    pub text: String,
    /// In the order of time.
    pub words: Vec<Word>,
    /// As [`Word::confidence`], over all words together; 0 without words.
    pub confidence: f32,
}

/// A word that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// As the dictionary, or the grammar, spells it.
    pub text: String,
    /// Since the first sample of the utterance.
    pub start: Duration,
    /// At most the start of the next word.
    pub end: Duration,
    /// Within `0.0..=1.0`, and not the same thing for both kinds of search.
    ///
    /// With a language model: the posterior probability of this pronunciation at this place, among all that the
    /// search kept. Measured on 291 words: 0.76 on average for right ones, 0.40 for wrong ones; of the right ones 81 %
    /// are above 0.5, of the wrong ones 39 %.
    ///
    /// With a grammar, where the search knows no alternatives: how well the sound fits the word, compared with what
    /// would fit best of all that the acoustic model knows. For a whole [`Hypothesis`] it tells whether somebody said
    /// what the grammar has: of 126 utterances against three grammars, the 23 that were of the grammar came out at 0.85
    /// or above, all others at 0.24 or below (0.35 with PocketSphinx 5), although words were found in them. Measured
    /// with Debian's model, and right for no other.
    pub confidence: f32,
}

/// A decoder for one utterance at a time. Belongs to the thread that made it.
pub struct Decoder {
    raw: sys::Decoder,
    has_grammar: bool,
    is_single_pass: bool,
    /// The mean that the model names, for the start of each utterance; `None` when the model does without.
    mean: Option<Vec<f32>>,
    utterance: Option<Utterance>,
}

/// The utterance under way.
#[derive(Default)]
struct Utterance {
    /// Words of the segments before this one, and the sum of their measures.
    words: Vec<Word>,
    measure: Measure,
    /// Samples of the segments before this one.
    offset: u64,
    segment: Segment,
    /// Samples that do not make a whole block yet.
    pending: Vec<i16>,
}

/// Part of an utterance: all of it, unless it is long.
#[derive(Default)]
struct Segment {
    samples: u64,
    /// Mean that is being subtracted, and all samples so far, for as long as the mean may still change.
    trial: Option<Trial>,
    loudness: Loudness,
}

/// What a confidence is made of: how many frames, and sums over them.
#[derive(Default)]
struct Measure {
    frames: f64,
    score: f64,
    posterior: f64,
}

struct Trial {
    mean: Vec<f32>,
    samples: Vec<i16>,
}

/// Tells pauses from speech within one segment, to cut a long utterance where it hurts least.
#[derive(Default)]
struct Loudness {
    blocks: u32,
    power_sum: f64,
    quiet_blocks: u32,
}

/// Debian package with models for American English, and where it puts them.
const PACKAGE: &str = "pocketsphinx-en-us";
const MODEL: &str = "/usr/share/pocketsphinx/model/en-us/en-us";
const LANGUAGE_MODEL: &str = "/usr/share/pocketsphinx/model/en-us/en-us.lm.bin";
const DICTIONARY: &str = "/usr/share/pocketsphinx/model/en-us/cmudict-en-us.dict";

/// Samples that are decoded in one call, 20 ms. Always the same, because where calls end has an influence.
const BLOCK: usize = 320;

/// Samples after which the mean is computed. Source: on the 296 words of the header, [1 s] leaves 66 errors,
/// [1 s, 2 s] 58, [1 s, 2 s, 3 s] 66, with a longer delay.
const CHECKPOINTS: [usize; 2] = [SAMPLE_RATE_HZ as usize, 2 * SAMPLE_RATE_HZ as usize];

/// Frames that are too few for a mean of their own, 0.2 s.
const FEWEST_FRAMES: u32 = 20;

/// A segment ends at the first pause after this many samples, 20 s: the later passes over it take up to 4 % of its
/// length, and nothing is decoded meanwhile.
const LONG_SEGMENT: u64 = 20 * SAMPLE_RATE_HZ as u64;

/// A segment ends here without a pause, 30 s.
const LONGEST_SEGMENT: u64 = 30 * SAMPLE_RATE_HZ as u64;

/// Blocks that make a pause, 0.2 s.
const PAUSE_BLOCKS: u32 = 10;

/// Power of a quiet block relative to the mean of the segment, -15 dB.
const QUIET: f64 = 0.03;

/// Mean acoustic score per frame at which the fit to a grammar counts as 0.5, and how much more makes it 0.73. Source:
/// whole utterances of the grammar had -48 to -29, others -116 to -62; single words in them -64 to -14 and -242 to -9.
const FIT_MIDDLE: f64 = -55.0;
const FIT_SLOPE: f64 = 5.0;

impl Settings {
    /// Looks at all files and at the grammar, without PocketSphinx. Takes about 20 ms.
    ///
    /// # Errors
    ///
    /// The first thing that [`Decoder::new`] would stumble over.
    pub fn check(&self) -> Result<(), Error> {
        self.resolve().map(|_| ())
    }

    fn resolve(&self) -> Result<Resolved, Error> {
        let model = self.model.clone().unwrap_or_else(|| MODEL.into());
        check_acoustic_model(&model)?;
        let dictionary = self.dictionary.clone().unwrap_or_else(|| DICTIONARY.into());
        check_file("pronunciation dictionary", &dictionary, "a text file: a word and its phones per line")?;
        let search = match &self.grammar {
            None => {
                let language_model = self.language_model.clone().unwrap_or_else(|| LANGUAGE_MODEL.into());
                check_file("language model", &language_model, "a file in ARPA's or PocketSphinx's format")?;
                Search::LanguageModel(language_model)
            }
            Some(text) => {
                let grammar = Grammar::parse(text)?;
                let words = grammar.words();
                let pronunciations =
                    dictionary::look_up(&dictionary, &words).map_err(|source| Error::Missing {
                        role: "pronunciation dictionary",
                        path: dictionary.clone(),
                        wanted: "a text file",
                        source,
                    })?;
                if !pronunciations.missing.is_empty() {
                    return Err(Error::UnknownWords { words: pronunciations.missing, dictionary });
                }
                Search::Grammar { jsgf: grammar.to_jsgf(), words: pronunciations.found }
            }
        };
        Ok(Resolved { model, dictionary, search })
    }
}

/// [`Settings`] without gaps and mistakes.
struct Resolved {
    model: PathBuf,
    dictionary: PathBuf,
    search: Search,
}

enum Search {
    LanguageModel(PathBuf),
    Grammar { jsgf: String, words: Vec<(String, String)> },
}

impl Decoder {
    /// Reads the models: 0.25 s and 93 MB with a language model, 0.02 s and 4 MB with a grammar. Decoders share
    /// nothing of it but the files that PocketSphinx maps, 4 MB.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::Search`] does not occur.
    pub fn new(library: Library, settings: &Settings) -> Result<Decoder, Error> {
        let Resolved { model, dictionary, search } = settings.resolve()?;
        let config = match &search {
            Search::LanguageModel(language_model) => sys::Config {
                acoustic_model: &model,
                dictionary: &dictionary,
                language_model: Some(language_model),
            },
            // Words are added one by one.
            Search::Grammar { .. } => sys::Config {
                acoustic_model: &model,
                dictionary: Path::new("/dev/null"),
                language_model: None,
            },
        };
        let mut raw = sys::Decoder::new(library, &config)
            .map_err(|sys::Refused| Error::Models { command: command_for(&model, &dictionary, &search) })?;
        let has_grammar = match search {
            Search::LanguageModel(_) => false,
            Search::Grammar { jsgf, words } => {
                for (word, phones) in words {
                    if raw.add_word(&word, &phones).is_err() {
                        return Err(Error::Pronunciation { word, phones, dictionary });
                    }
                }
                raw.set_grammar(&jsgf).map_err(|sys::Refused| Error::GrammarRefused)?;
                true
            }
        };
        let mean = raw.mean();
        Ok(Decoder { raw, has_grammar, is_single_pass: settings.is_single_pass, mean, utterance: None })
    }

    /// Starts an utterance; one that is under way is given up.
    ///
    /// # Errors
    ///
    /// [`Error::Search`].
    pub fn start_utterance(&mut self) -> Result<(), Error> {
        self.abandon();
        if let Some(mean) = &self.mean {
            self.raw.set_mean(mean);
        }
        self.raw.start()?;
        let mean = if self.is_single_pass { None } else { self.mean.clone() };
        let trial = mean.map(|mean| Trial { mean, samples: Vec::new() });
        let segment = Segment { trial, ..Segment::default() };
        self.utterance = Some(Utterance { segment, ..Utterance::default() });
        Ok(())
    }

    /// Decodes more samples of the utterance. Takes 14 % of their length for it (4 % with a grammar), and longer now
    /// and then: 0.2 s and 0.3 s when it decodes again after 1 s and 2 s, up to 1 s when an utterance is cut in two.
    ///
    /// # Errors
    ///
    /// [`Error::Search`]; the utterance is given up then.
    ///
    /// # Panics
    ///
    /// When no utterance was started.
    pub fn process(&mut self, samples: &[i16]) -> Result<(), Error> {
        let mut utterance = self.utterance.take().expect("`start_utterance` comes first");
        let mut rest = samples;
        while utterance.pending.len() + rest.len() >= BLOCK {
            let (now, later) = rest.split_at(BLOCK - utterance.pending.len());
            utterance.pending.extend_from_slice(now);
            rest = later;
            let block = std::mem::take(&mut utterance.pending);
            let outcome = self.process_block(&mut utterance, &block);
            utterance.pending = block;
            utterance.pending.clear();
            if let Err(error) = outcome {
                // Without effect if that is what failed.
                let _ = self.raw.end();
                return Err(error);
            }
        }
        utterance.pending.extend_from_slice(rest);
        self.utterance = Some(utterance);
        Ok(())
    }

    /// What was understood so far; `None` when that is nothing, or no utterance is under way. May change altogether
    /// with the next samples.
    pub fn partial(&mut self) -> Option<String> {
        let utterance = self.utterance.as_ref()?;
        let before = text_of(&utterance.words);
        let now = self.raw.hypothesis().unwrap_or_default();
        let text = [before, now].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then_some(text)
    }

    /// Ends the utterance. Takes up to 4 % of its length, and for one shorter than 2 s another 16 %, as it is decoded
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Search`]; the utterance is given up then.
    ///
    /// # Panics
    ///
    /// When no utterance was started.
    pub fn finish(&mut self) -> Result<Hypothesis, Error> {
        let mut utterance = self.utterance.take().expect("`start_utterance` comes first");
        let pending = std::mem::take(&mut utterance.pending);
        self.process_tail(&mut utterance, &pending).inspect_err(|_| {
            let _ = self.raw.end();
        })?;
        self.raw.end()?;
        self.collect(&mut utterance);
        let Utterance { words, measure, .. } = utterance;
        Ok(Hypothesis { text: text_of(&words), words, confidence: self.confidence(&measure) })
    }

    /// Gives up the utterance under way, if there is one. Takes as long as the end of an utterance.
    pub fn abandon(&mut self) {
        if self.utterance.take().is_some() {
            // When this fails there is no utterance either, which is all that matters.
            let _ = self.raw.end();
        }
    }

    fn process_block(&mut self, utterance: &mut Utterance, block: &[i16]) -> Result<(), Error> {
        let segment = &mut utterance.segment;
        self.raw.process(block)?;
        segment.samples += block.len() as u64;
        segment.loudness.add(block);
        if let Some(trial) = &mut segment.trial {
            trial.samples.extend_from_slice(block);
            if CHECKPOINTS.contains(&trial.samples.len()) {
                self.decode_again(trial)?;
            }
            if trial.samples.len() >= CHECKPOINTS[CHECKPOINTS.len() - 1] {
                segment.trial = None;
            }
        }
        let is_long = segment.samples >= LONG_SEGMENT && segment.loudness.is_pause();
        if is_long || segment.samples >= LONGEST_SEGMENT {
            self.raw.end()?;
            self.collect(utterance);
            utterance.offset += utterance.segment.samples;
            // The mean stays: what was heard is the best guess for what comes.
            self.raw.start()?;
            utterance.segment = Segment::default();
        }
        Ok(())
    }

    fn process_tail(&mut self, utterance: &mut Utterance, tail: &[i16]) -> Result<(), Error> {
        self.raw.process(tail)?;
        if let Some(trial) = &mut utterance.segment.trial {
            trial.samples.extend_from_slice(tail);
            self.decode_again(trial)?;
        }
        Ok(())
    }

    /// Decodes the samples of a trial once more, with their own mean.
    fn decode_again(&mut self, trial: &mut Trial) -> Result<(), Error> {
        if self.raw.frames() < FEWEST_FRAMES {
            return Ok(());
        }
        self.raw.end()?;
        if let Some(updated) = self.raw.mean() {
            trial.mean = own_mean(&trial.mean, &updated, self.raw.frames());
        }
        self.raw.set_mean(&trial.mean);
        self.raw.start()?;
        for block in trial.samples.chunks(BLOCK) {
            self.raw.process(block)?;
        }
        Ok(())
    }

    /// Appends the words of a segment that has ended.
    fn collect(&mut self, utterance: &mut Utterance) {
        let frames_per_second = f64::from(self.raw.frames_per_second());
        let offset = Duration::from_secs_f64(utterance.offset as f64 / f64::from(SAMPLE_RATE_HZ));
        let time = |frame: i32| offset + Duration::from_secs_f64(f64::from(frame.max(0)) / frames_per_second);
        for segment in self.raw.segments() {
            let frames = segment.last_frame - segment.first_frame + 1;
            if !is_spoken(&segment.word) || frames <= 0 {
                continue;
            }
            let measure = Measure {
                frames: f64::from(frames),
                score: f64::from(segment.acoustic_score),
                posterior: segment.posterior * f64::from(frames),
            };
            utterance.words.push(Word {
                text: without_number(&segment.word).to_owned(),
                start: time(segment.first_frame),
                end: time(segment.last_frame + 1),
                confidence: self.confidence(&measure),
            });
            utterance.measure.frames += measure.frames;
            utterance.measure.score += measure.score;
            utterance.measure.posterior += measure.posterior;
        }
    }

    fn confidence(&self, measure: &Measure) -> f32 {
        if measure.frames == 0.0 {
            return 0.0;
        }
        let confidence = if self.has_grammar {
            let score = measure.score / measure.frames;
            1.0 / (1.0 + ((FIT_MIDDLE - score) / FIT_SLOPE).exp())
        } else {
            measure.posterior / measure.frames
        };
        confidence.clamp(0.0, 1.0) as f32
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("has_grammar", &self.has_grammar).finish_non_exhaustive()
    }
}

impl Loudness {
    fn add(&mut self, block: &[i16]) {
        let power = block.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / block.len() as f64;
        self.blocks += 1;
        self.power_sum += power;
        let is_quiet = power <= QUIET * self.power_sum / f64::from(self.blocks);
        self.quiet_blocks = if is_quiet { self.quiet_blocks + 1 } else { 0 };
    }

    fn is_pause(&self) -> bool {
        self.quiet_blocks >= PAUSE_BLOCKS
    }
}

impl From<sys::Refused> for Error {
    fn from(_: sys::Refused) -> Error {
        Error::Search
    }
}

/// The mean of what was heard alone, from a mean in which what was set before weighs [`sys::MEAN_WEIGHT`] frames.
fn own_mean(before: &[f32], updated: &[f32], frames: u32) -> Vec<f32> {
    let (weight, frames) = (sys::MEAN_WEIGHT as f32, frames as f32);
    let own = |(&before, &updated): (&f32, &f32)| (updated * (weight + frames) - before * weight) / frames;
    before.iter().zip(updated).map(own).collect()
}

fn text_of(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// Whether an entry of the best path is a word: silences, noises and steps without sound are entries too.
fn is_spoken(word: &str) -> bool {
    !word.is_empty() && !word.starts_with(['<', '[', '+']) && word != "(NULL)"
}

fn check_file(role: &'static str, path: &Path, wanted: &'static str) -> Result<(), Error> {
    let missing = |source| Error::Missing { role, path: path.to_owned(), wanted, source };
    if fs::metadata(path).map_err(missing)?.is_dir() {
        return Err(Error::Unusable { role, path: path.to_owned(), wanted });
    }
    if first_bytes(path).map_err(missing)?.is_empty() {
        return Err(Error::Unusable { role, path: path.to_owned(), wanted });
    }
    Ok(())
}

/// Looks at what each file starts with: PocketSphinx ends the process when it finds another thing in some of them.
fn check_acoustic_model(model: &Path) -> Result<(), Error> {
    const ROLE: &str = "acoustic model";
    const WANTED: &str = "a directory with mdef, means, variances, transition_matrices and sendump";
    let missing = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Missing { role: ROLE, path, wanted: WANTED, source }
    };
    fs::read_dir(model).map_err(missing(model))?;
    type IsStart = fn(&[u8]) -> bool;
    let is_s3: IsStart = |start| start.starts_with(b"s3\n");
    let is_definition: IsStart = |start| {
        start.starts_with(b"BMDF")
            || start.starts_with(b"FMDB")
            || start.starts_with(b"0.")
            || start.starts_with(b"#")
    };
    let is_anything: IsStart = |start| !start.is_empty();
    let mixtures =
        if model.join("sendump").exists() { ("sendump", is_anything) } else { ("mixture_weights", is_s3) };
    let files = [
        ("mdef", is_definition),
        ("means", is_s3),
        ("variances", is_s3),
        ("transition_matrices", is_s3),
        mixtures,
    ];
    for (name, is_start) in files {
        let path = model.join(name);
        if !is_start(&first_bytes(&path).map_err(missing(&path))?) {
            return Err(Error::Unusable {
                role: ROLE,
                path,
                wanted: "what its name says, of a Sphinx 3 model",
            });
        }
    }
    // The file may be missing, and the setting too: then it is 16 kHz.
    let parameters = fs::read_to_string(model.join("feat.params")).unwrap_or_default();
    let mut parameters = parameters.split_whitespace().skip_while(|&parameter| parameter != "-samprate");
    let found_hz = parameters.nth(1).and_then(|rate| rate.parse::<f64>().ok()).map(|rate| rate as u32);
    match found_hz {
        Some(found_hz) if found_hz != SAMPLE_RATE_HZ => {
            Err(Error::SampleRate { path: model.to_owned(), found_hz })
        }
        _ => Ok(()),
    }
}

fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(8).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn command_for(model: &Path, dictionary: &Path, search: &Search) -> String {
    let search = match search {
        Search::LanguageModel(path) => format!(" -lm {}", path.display()),
        Search::Grammar { .. } => String::new(),
    };
    let (model, dictionary) = (model.display(), dictionary.display());
    format!("pocketsphinx_continuous -hmm {model} -dict {dictionary}{search} -infile /dev/null")
}

fn plural(words: &[String]) -> &'static str {
    if words.len() == 1 { "a word" } else { "words" }
}

#[cfg(test)]
mod tests;

#![expect(
    unsafe_code,
    reason = "PocketSphinx is a C library; this is the only file of the plugin that calls it"
)]
//! What the plugin needs of PocketSphinx, opened at run time and wrapped so that callers stay safe.
//!
//! Nothing links to it. The declarations are by hand, from the headers of Debian's `libpocketsphinx-dev` and
//! `libsphinxbase-dev` 0.8+5prealpha (`libpocketsphinx.so.3`) and of PocketSphinx 5.0.4 (`libpocketsphinx.so.5`).
//! The two differ in how they are configured, in the names of two calls for grammars and in how they let one at
//! the cepstral mean; [`Flavor`] is that difference.
//!
//! Threads: a decoder belongs to the thread that made it. Decoders share no data that a call of here writes, except
//! the log's file, which [`Library::open`] sets once and nothing sets again: see there for why that matters.
//!
//! Not here: what an utterance is, where models lie and what words mean, which is [`decoder`](crate::decoder)'s.

use std::{
    ffi::{CStr, CString, NulError, c_char, c_double, c_int, c_long, c_void},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr::{self, NonNull},
};

/// No usable PocketSphinx was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The dynamic linker did not find the library, or could not open it.
    #[error(
        "cannot open PocketSphinx (tried {}); the Debian package `libpocketsphinx3` has it: \
         `apt-get install libpocketsphinx3`",
        tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Library {
        /// Names given to the dynamic linker, in this order.
        tried: Vec<PathBuf>,
        /// What the dynamic linker says of the first of them.
        source: libloading::Error,
    },
    /// The library is not one that this plugin knows.
    #[error(
        "{} has no `{symbol}`, so it is neither PocketSphinx 0.8+5prealpha nor 5; the Debian package \
         `libpocketsphinx3` has the former: `apt-get install libpocketsphinx3`",
        library.display()
    )]
    Symbol {
        /// Name of the library.
        library: PathBuf,
        /// Function that it should have.
        symbol: &'static str,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
}

/// A call was refused; PocketSphinx says why only in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// PocketSphinx, opened. Cheap to copy, and valid for the rest of the process: it is never closed.
#[derive(Clone, Copy)]
pub struct Library {
    calls: &'static Calls,
}

/// Where the models are, and which search is made of them.
pub(crate) struct Config<'a> {
    pub(crate) acoustic_model: &'a Path,
    pub(crate) dictionary: &'a Path,
    /// `None` leaves the decoder without a search until [`Decoder::set_grammar`], whose acoustic scores are then
    /// relative to the best of all states of the acoustic model, and not just of those that the search visits.
    pub(crate) language_model: Option<&'a Path>,
}

/// One entry of the path that the search found best.
pub(crate) struct Segment {
    /// As the dictionary spells it, with the number of the pronunciation: `read(2)`. Silence is an entry too.
    pub(crate) word: String,
    pub(crate) first_frame: i32,
    /// Inclusive; less than `first_frame` for an entry that takes no time.
    pub(crate) last_frame: i32,
    /// Probability, only meaningful for a search with a language model; rounding takes it slightly above 1.
    pub(crate) posterior: f64,
    /// How well the sound fits, summed over the frames, at most 0. Only meaningful for a search with a grammar.
    pub(crate) acoustic_score: i32,
}

/// A decoder of the library, with or without a search.
pub(crate) struct Decoder {
    calls: &'static Calls,
    raw: NonNull<RawDecoder>,
    frames_per_second: u32,
    normalises: bool,
}

impl Library {
    /// Opens `library`, or else the first of Debian's 0.8 and PocketSphinx 5 that this machine has.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when there is none, or when it lacks a function.
    pub fn open(library: Option<&Path>) -> Result<Library, LoadError> {
        const KNOWN: [&str; 3] = ["libpocketsphinx.so.3", "libpocketsphinx.so.5", "libpocketsphinx.so"];
        let tried: Vec<PathBuf> = match library {
            Some(path) => vec![path.to_owned()],
            None => KNOWN.map(PathBuf::from).into(),
        };
        let mut first_error = None;
        for path in &tried {
            // SAFETY: the constructors of PocketSphinx and of the libraries that it needs (sphinxbase, the C
            // library, BLAS in Debian's build) only set up their own data, on any thread.
            match unsafe { libloading::Library::new(path.as_path()) } {
                Ok(library) => {
                    // Never closed: decoders of other threads may still be running when a plugin ends.
                    let calls = Box::leak(Box::new(Calls::find(Box::leak(Box::new(library)), path)?));
                    // PocketSphinx logs to stderr unless told otherwise. The file is global, is changed without a
                    // lock and (from `-logfn`) closed while other decoders write to it, so it is set here, before
                    // any decoder exists, and `-logfn` is never used. Setting it again to null changes nothing.
                    // SAFETY: null is the documented way to switch the log off.
                    unsafe { (calls.err_set_logfp)(ptr::null_mut()) };
                    return Ok(Library { calls });
                }
                Err(source) => {
                    first_error.get_or_insert(source);
                }
            }
        }
        Err(LoadError::Library { tried, source: first_error.expect("at least one name was tried") })
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("flavor", &self.calls.flavor.name()).finish_non_exhaustive()
    }
}

impl Decoder {
    /// Reads the models. Takes 0.25 s and 93 MB with Debian's American English.
    ///
    /// # Errors
    ///
    /// [`Refused`] when a model cannot be read. A damaged acoustic model can end the process instead, which is how
    /// PocketSphinx reacts to some of them: check before.
    pub(crate) fn new(library: Library, config: &Config<'_>) -> Result<Decoder, Refused> {
        let calls = library.calls;
        let raw_config = calls.flavor.configure(config)?;
        // SAFETY: `raw_config` was made by this library just now. `ps_init` takes its own reference to it, also
        // when it fails (it then frees what it made).
        let raw = unsafe { (calls.ps_init)(raw_config.as_ptr()) };
        // Read before our reference is given back: `feat.params` of the model may have changed the rate.
        let frames_per_second = calls.flavor.frames_per_second(raw_config);
        let normalises = raw.is_null() || calls.flavor.normalises(raw, raw_config);
        calls.flavor.free(raw_config);
        let raw = NonNull::new(raw).ok_or(Refused)?;
        Ok(Decoder { calls, raw, frames_per_second, normalises })
    }

    /// Frames that the decoder makes of a second of audio, at least 1.
    pub(crate) fn frames_per_second(&self) -> u32 {
        self.frames_per_second
    }

    /// Adds a pronunciation; the number of an alternative is part of the word: `read(2)`, after `read`.
    ///
    /// # Errors
    ///
    /// [`Refused`] for a phone that the model does not know, and for a word that was there already.
    pub(crate) fn add_word(&mut self, word: &str, phones: &str) -> Result<(), Refused> {
        let (word, phones) = (c_string(word)?, c_string(phones)?);
        // SAFETY: `raw` is a live decoder of ours; both strings end in NUL and are copied.
        let id = unsafe { (self.calls.ps_add_word)(self.raw.as_ptr(), word.as_ptr(), phones.as_ptr(), 0) };
        if id < 0 { Err(Refused) } else { Ok(()) }
    }

    /// Makes the grammar the search. Not during an utterance.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the text is no JSGF grammar, and for a word that the dictionary lacks.
    pub(crate) fn set_grammar(&mut self, jsgf: &str) -> Result<(), Refused> {
        let jsgf = c_string(jsgf)?;
        let (set, activate) = self.calls.flavor.grammar_calls();
        // SAFETY: `raw` is a live decoder of ours; both strings end in NUL and are copied or only read.
        let status = unsafe {
            match set(self.raw.as_ptr(), GRAMMAR.as_ptr(), jsgf.as_ptr()) {
                0 => activate(self.raw.as_ptr(), GRAMMAR.as_ptr()),
                refused => refused,
            }
        };
        if status == 0 { Ok(()) } else { Err(Refused) }
    }

    /// Starts an utterance, with an estimate of the noise that is made afresh.
    ///
    /// # Errors
    ///
    /// [`Refused`] when one is under way or there is no search.
    pub(crate) fn start(&mut self) -> Result<(), Refused> {
        // SAFETY: `raw` is a live decoder of ours. `ps_start_stream` forgets noise and position; version 5 reports
        // an error when noise is not being removed, which is no reason to stop.
        let status = unsafe {
            (self.calls.ps_start_stream)(self.raw.as_ptr());
            (self.calls.ps_start_utt)(self.raw.as_ptr())
        };
        if status < 0 { Err(Refused) } else { Ok(()) }
    }

    /// Decodes more samples of the utterance under way: 16 kHz, mono.
    ///
    /// # Errors
    ///
    /// [`Refused`] when the search fails.
    pub(crate) fn process(&mut self, samples: &[i16]) -> Result<(), Refused> {
        // SAFETY: `raw` is a live decoder of ours; the samples are only read, and only for the length of the call.
        let frames =
            unsafe { (self.calls.ps_process_raw)(self.raw.as_ptr(), samples.as_ptr(), samples.len(), 0, 0) };
        if frames < 0 { Err(Refused) } else { Ok(()) }
    }

    /// Ends the utterance under way and makes the later passes over it.
    ///
    /// # Errors
    ///
    /// [`Refused`] when there is none or a pass fails; there is no utterance under way then.
    pub(crate) fn end(&mut self) -> Result<(), Refused> {
        // SAFETY: `raw` is a live decoder of ours.
        let status = unsafe { (self.calls.ps_end_utt)(self.raw.as_ptr()) };
        if status < 0 { Err(Refused) } else { Ok(()) }
    }

    /// The words that are best so far, or in the end, without silences and numbers of pronunciations.
    pub(crate) fn hypothesis(&mut self) -> Option<String> {
        let mut score = 0;
        // SAFETY: `raw` is a live decoder of ours. The text belongs to it and stays until the next call on it.
        unsafe { text((self.calls.ps_get_hyp)(self.raw.as_ptr(), &raw mut score)) }
    }

    /// The best path, in the order of time; with a language model its posteriors exist once the utterance ended.
    pub(crate) fn segments(&mut self) -> Vec<Segment> {
        let mut segments = Vec::new();
        // SAFETY: `raw` is a live decoder of ours. `ps_seg_next` frees the iterator when it returns null, which is
        // the only way out of this loop; nothing else calls the decoder meanwhile, as `self` is borrowed for it.
        unsafe {
            let logmath = (self.calls.ps_get_logmath)(self.raw.as_ptr());
            let mut segment = (self.calls.ps_seg_iter)(self.raw.as_ptr());
            while !segment.is_null() {
                let (mut first_frame, mut last_frame) = (0, 0);
                (self.calls.ps_seg_frames)(segment, &raw mut first_frame, &raw mut last_frame);
                let (mut acoustic_score, mut language_score, mut order) = (0, 0, 0);
                let posterior = (self.calls.ps_seg_prob)(
                    segment,
                    &raw mut acoustic_score,
                    &raw mut language_score,
                    &raw mut order,
                );
                segments.push(Segment {
                    word: text((self.calls.ps_seg_word)(segment)).unwrap_or_default(),
                    first_frame,
                    last_frame,
                    posterior: (self.calls.logmath_exp)(logmath, posterior),
                    acoustic_score,
                });
                segment = (self.calls.ps_seg_next)(segment);
            }
        }
        segments
    }

    /// Frames of the utterance that were searched.
    pub(crate) fn frames(&mut self) -> u32 {
        // SAFETY: `raw` is a live decoder of ours.
        let next = unsafe { (self.calls.ps_get_n_frames)(self.raw.as_ptr()) };
        u32::try_from(next - 1).unwrap_or(0)
    }

    /// The cepstral mean that is subtracted from what comes next; `None` when the model does without.
    pub(crate) fn mean(&mut self) -> Option<Vec<f32>> {
        self.normalises.then(|| self.calls.flavor.mean(self.raw)).flatten()
    }

    /// Sets the cepstral mean, which counts as [`MEAN_WEIGHT`] frames when it is updated. Without effect when
    /// [`mean`](Decoder::mean) is `None`.
    ///
    /// # Panics
    ///
    /// When `mean` has not the length of [`mean`](Decoder::mean).
    pub(crate) fn set_mean(&mut self, mean: &[f32]) {
        if self.normalises {
            self.calls.flavor.set_mean(self.raw, mean);
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: `raw` was made by `ps_init` and not freed before; `self` is the only one that has it.
        unsafe { (self.calls.ps_free)(self.raw.as_ptr()) };
    }
}

/// Frames that a mean weighs which was set. Source: `CMN_WIN` of sphinxbase's `cmn.h`, and `cmn_live_set` there.
pub(crate) const MEAN_WEIGHT: u32 = 500;

/// Name of the search that [`Decoder::set_grammar`] adds.
const GRAMMAR: &CStr = c"grammar";

#[repr(C)]
struct RawDecoder {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawConfig {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawSegment {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawLogmath {
    _opaque: [u8; 0],
}

/// Start of 0.8's `feat_t`, from sphinxbase's `feat.h`; only its pointer to the mean is of use.
#[repr(C)]
struct RawFeatures {
    refcount: c_int,
    name: *mut c_char,
    cepstra: i32,
    streams: i32,
    stream_lengths: *mut u32,
    window: i32,
    subvectors: i32,
    subvector_lengths: *mut u32,
    subvector_table: *mut *mut i32,
    subvector_buffer: *mut f32,
    subvector_dimension: i32,
    mean_kind: c_int,
    normalises_variance: i32,
    gain_kind: c_int,
    compute: *mut c_void,
    mean: *mut RawMean,
}

/// 0.8's `cmn_t`, from sphinxbase's `cmn.h`.
#[repr(C)]
struct RawMean {
    mean: *mut f32,
    variance: *mut f32,
    sum: *mut f32,
    frames: i32,
    length: i32,
}

/// Declares a table of functions of the library, and how to find them.
macro_rules! calls {
    ($table:ident { $($name:ident: fn($($argument:ty),*) $(-> $result:ty)?,)* } $(+ $more:ident: $kind:ty)?) => {
        struct $table {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            $($more: $kind,)?
        }

        impl $table {
            fn find(library: &'static libloading::Library, path: &Path) -> Result<$table, LoadError> {
                Ok($table {
                    $($name: {
                        let name = stringify!($name);
                        // SAFETY: the types are those of the headers named at the top of this file, and
                        // `Flavor::find` tells their versions apart by functions that only one of them has.
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>(name)
                        };
                        *symbol.map_err(|source| LoadError::Symbol { library: path.to_owned(), symbol: name, source })?
                    },)*
                    $($more: <$kind>::find(library, path)?,)?
                })
            }
        }
    };
}

calls! { Calls {
    err_set_logfp: fn(*mut c_void),
    logmath_exp: fn(*mut RawLogmath, c_int) -> c_double,
    ps_add_word: fn(*mut RawDecoder, *const c_char, *const c_char, c_int) -> c_int,
    ps_end_utt: fn(*mut RawDecoder) -> c_int,
    ps_free: fn(*mut RawDecoder) -> c_int,
    ps_get_hyp: fn(*mut RawDecoder, *mut i32) -> *const c_char,
    ps_get_logmath: fn(*mut RawDecoder) -> *mut RawLogmath,
    ps_get_n_frames: fn(*mut RawDecoder) -> c_int,
    ps_init: fn(*mut RawConfig) -> *mut RawDecoder,
    ps_process_raw: fn(*mut RawDecoder, *const i16, usize, c_int, c_int) -> c_int,
    ps_seg_frames: fn(*mut RawSegment, *mut c_int, *mut c_int),
    ps_seg_iter: fn(*mut RawDecoder) -> *mut RawSegment,
    ps_seg_next: fn(*mut RawSegment) -> *mut RawSegment,
    ps_seg_prob: fn(*mut RawSegment, *mut i32, *mut i32, *mut i32) -> i32,
    ps_seg_word: fn(*mut RawSegment) -> *const c_char,
    ps_start_stream: fn(*mut RawDecoder) -> c_int,
    ps_start_utt: fn(*mut RawDecoder) -> c_int,
} + flavor: Flavor }

calls! { Calls08 {
    cmd_ln_free_r: fn(*mut RawConfig) -> c_int,
    cmd_ln_int_r: fn(*mut RawConfig, *const c_char) -> c_long,
    cmd_ln_parse_r: fn(*mut RawConfig, *const c_void, i32, *mut *mut c_char, i32) -> *mut RawConfig,
    cmn_live_get: fn(*mut RawMean, *mut f32),
    cmn_live_set: fn(*mut RawMean, *const f32),
    ps_args: fn() -> *const c_void,
    ps_get_feat: fn(*mut RawDecoder) -> *mut RawFeatures,
    ps_set_jsgf_string: fn(*mut RawDecoder, *const c_char, *const c_char) -> c_int,
    ps_set_search: fn(*mut RawDecoder, *const c_char) -> c_int,
} }

calls! { Calls5 {
    ps_activate_search: fn(*mut RawDecoder, *const c_char) -> c_int,
    ps_add_jsgf_string: fn(*mut RawDecoder, *const c_char, *const c_char) -> c_int,
    ps_config_free: fn(*mut RawConfig) -> c_int,
    ps_config_init: fn(*const c_void) -> *mut RawConfig,
    ps_config_int: fn(*mut RawConfig, *const c_char) -> c_long,
    ps_config_set_bool: fn(*mut RawConfig, *const c_char, c_int) -> *const c_void,
    ps_config_set_str: fn(*mut RawConfig, *const c_char, *const c_char) -> *const c_void,
    ps_config_str: fn(*mut RawConfig, *const c_char) -> *const c_char,
    ps_get_cmn: fn(*mut RawDecoder, c_int) -> *const c_char,
    ps_set_cmn: fn(*mut RawDecoder, *const c_char) -> c_int,
} }

/// What the two versions of the library have named, or done, differently.
enum Flavor {
    /// 0.8+5prealpha, in Debian since 2016.
    V08(Calls08),
    /// 5.0 of 2022 and later.
    V5(Calls5),
}

impl Flavor {
    fn find(library: &'static libloading::Library, path: &Path) -> Result<Flavor, LoadError> {
        // SAFETY: only asks whether the name exists; nothing is called through this pointer.
        if unsafe { library.get::<*const c_void>("ps_config_init") }.is_ok() {
            Calls5::find(library, path).map(Flavor::V5)
        } else {
            Calls08::find(library, path).map(Flavor::V08)
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Flavor::V08(_) => "0.8",
            Flavor::V5(_) => "5",
        }
    }

    fn configure(&self, config: &Config<'_>) -> Result<NonNull<RawConfig>, Refused> {
        let mut settings =
            vec![(c"-hmm", c_path(config.acoustic_model)?), (c"-dict", c_path(config.dictionary)?)];
        if let Some(language_model) = config.language_model {
            settings.push((c"-lm", c_path(language_model)?));
        }
        let has_grammar = config.language_model.is_none();
        match self {
            Flavor::V08(calls) => {
                settings.push((c"-compallsen", if has_grammar { c"yes" } else { c"no" }.to_owned()));
                // 0.8 would drop pauses from the audio, and then be wrong about when words were said.
                settings.push((c"-remove_silence", c"no".to_owned()));
                let mut arguments: Vec<*mut c_char> = settings
                    .iter()
                    .flat_map(|(name, value)| [name.as_ptr().cast_mut(), value.as_ptr().cast_mut()])
                    .collect();
                let count = i32::try_from(arguments.len()).expect("there are at most ten");
                // SAFETY: `ps_args` returns the library's constant table; `arguments` holds `count` strings that
                // end in NUL and outlive the call, which only reads them and copies the values.
                let raw = unsafe {
                    (calls.cmd_ln_parse_r)(
                        ptr::null_mut(),
                        (calls.ps_args)(),
                        count,
                        arguments.as_mut_ptr(),
                        1,
                    )
                };
                NonNull::new(raw).ok_or(Refused)
            }
            Flavor::V5(calls) => {
                // SAFETY: null asks for the library's own table of settings.
                let raw = NonNull::new(unsafe { (calls.ps_config_init)(ptr::null()) }).ok_or(Refused)?;
                // 5 would also make a lattice for a grammar, as 0.8 does not, with scores of another scale.
                let switches = [(c"compallsen", has_grammar), (c"bestpath", !has_grammar)];
                // SAFETY: `raw` was made just now; all strings end in NUL and are copied. A name of `settings` starts
                // behind its hyphen, which version 5 does without.
                let is_set = unsafe {
                    let mut set = settings.iter().map(|(name, value)| {
                        (calls.ps_config_set_str)(raw.as_ptr(), name.as_ptr().add(1), value.as_ptr())
                    });
                    let mut switch = switches.iter().map(|&(name, is_on)| {
                        (calls.ps_config_set_bool)(raw.as_ptr(), name.as_ptr(), is_on.into())
                    });
                    set.all(|value| !value.is_null()) && switch.all(|value| !value.is_null())
                };
                if is_set {
                    return Ok(raw);
                }
                self.free(raw);
                Err(Refused)
            }
        }
    }

    fn frames_per_second(&self, config: NonNull<RawConfig>) -> u32 {
        // SAFETY: the callers of `configure` have not freed `config` yet; both versions know `frate`, as a number.
        let rate = unsafe {
            match self {
                Flavor::V08(calls) => (calls.cmd_ln_int_r)(config.as_ptr(), c"-frate".as_ptr()),
                Flavor::V5(calls) => (calls.ps_config_int)(config.as_ptr(), c"frate".as_ptr()),
            }
        };
        u32::try_from(rate).unwrap_or(0).max(1)
    }

    /// Whether the model of the decoder subtracts a cepstral mean, so that there is one to get and to set.
    fn normalises(&self, decoder: *mut RawDecoder, config: NonNull<RawConfig>) -> bool {
        match self {
            Flavor::V08(calls) => {
                // SAFETY: `decoder` is live, as its caller made it just now.
                unsafe { raw_mean(calls, decoder) }.is_some()
            }
            Flavor::V5(calls) => {
                // SAFETY: as in `frames_per_second`; the text belongs to `config`.
                let kind = unsafe { text((calls.ps_config_str)(config.as_ptr(), c"cmn".as_ptr())) };
                kind.is_some_and(|kind| kind != "none")
            }
        }
    }

    fn free(&self, config: NonNull<RawConfig>) {
        // SAFETY: the callers hold the reference that `configure` made, and give it up.
        unsafe {
            match self {
                Flavor::V08(calls) => (calls.cmd_ln_free_r)(config.as_ptr()),
                Flavor::V5(calls) => (calls.ps_config_free)(config.as_ptr()),
            }
        };
    }

    fn grammar_calls(&self) -> (SetGrammar, ActivateSearch) {
        match self {
            Flavor::V08(calls) => (calls.ps_set_jsgf_string, calls.ps_set_search),
            Flavor::V5(calls) => (calls.ps_add_jsgf_string, calls.ps_activate_search),
        }
    }

    fn mean(&self, decoder: NonNull<RawDecoder>) -> Option<Vec<f32>> {
        match self {
            Flavor::V08(calls) => {
                // SAFETY: `Decoder` calls this with its own, live decoder; `values` has the length that
                // `cmn_live_get` writes.
                unsafe {
                    let (mean, length) = raw_mean(calls, decoder.as_ptr())?;
                    let mut values = vec![0.0; length];
                    (calls.cmn_live_get)(mean, values.as_mut_ptr());
                    Some(values)
                }
            }
            Flavor::V5(calls) => {
                // SAFETY: as above; the text belongs to the decoder and stays until the mean is next set.
                let text = unsafe { text((calls.ps_get_cmn)(decoder.as_ptr(), 0)) }?;
                text.split(',').map(|value| value.trim().parse().ok()).collect()
            }
        }
    }

    fn set_mean(&self, decoder: NonNull<RawDecoder>, values: &[f32]) {
        match self {
            Flavor::V08(calls) => {
                // SAFETY: as in `mean`; the assertion makes `values` as long as what `cmn_live_set` reads.
                unsafe {
                    let Some((mean, length)) = raw_mean(calls, decoder.as_ptr()) else { return };
                    assert_eq!(values.len(), length, "a mean has as many values as the one that was read");
                    (calls.cmn_live_set)(mean, values.as_ptr());
                }
            }
            Flavor::V5(calls) => {
                let values: Vec<String> = values.iter().map(f32::to_string).collect();
                let values = CString::new(values.join(",")).expect("numbers have no NUL");
                // SAFETY: as in `mean`; the text ends in NUL and is only read.
                unsafe { (calls.ps_set_cmn)(decoder.as_ptr(), values.as_ptr()) };
            }
        }
    }
}

type SetGrammar = unsafe extern "C" fn(*mut RawDecoder, *const c_char, *const c_char) -> c_int;
type ActivateSearch = unsafe extern "C" fn(*mut RawDecoder, *const c_char) -> c_int;

/// The mean of a decoder and how many values it has; `None` when its model does without.
///
/// # Safety
///
/// `decoder` must be a live decoder of the library of `calls`.
unsafe fn raw_mean(calls: &Calls08, decoder: *mut RawDecoder) -> Option<(*mut RawMean, usize)> {
    // SAFETY: a live decoder has a `feat_t`, says `acmod_init`. Its layout, and that of `cmn_t`, are public in the
    // headers of 0.8+5prealpha, the last version with this file name; the two lengths agree in `feat_init`, so that a
    // library with another layout is most likely noticed here.
    unsafe {
        let features = (calls.ps_get_feat)(decoder).as_ref()?;
        let mean = features.mean.as_ref()?;
        let length = usize::try_from(mean.length).ok()?;
        (mean.length == features.cepstra && (1..=128).contains(&length)).then_some((features.mean, length))
    }
}

/// Copies a text of the library; `None` for null.
///
/// # Safety
///
/// `text` must be null, or end in NUL and not change during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller guarantees it.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

fn c_string(text: &str) -> Result<CString, Refused> {
    Ok(CString::new(text)?)
}

fn c_path(path: &Path) -> Result<CString, Refused> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

impl From<NulError> for Refused {
    fn from(_: NulError) -> Refused {
        Refused
    }
}

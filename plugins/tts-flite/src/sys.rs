#![expect(unsafe_code, reason = "flite is a C library; this is the only file of the plugin that calls it")]
//! What the plugin needs of flite 2's C interface, opened at run time and wrapped so that callers stay safe.
//!
//! Nothing links to flite. The declarations are by hand, from the headers of Debian's `flite1-dev` 2.2-5;
//! wherever flite offers an accessor it is used instead of a struct's layout.
//!
//! Threads: flite 2 keeps no state outside an utterance while it speaks. A voice is only read: an utterance
//! *links* to the features of its voice (`utt_init`), and speed and pitch are set on the utterance. So calls
//! may run at once, also on one voice, with different options. What does write globals is registering a voice,
//! hence the lock in [`Flite::voice`]. ThreadSanitizer agrees, on flite 2.2 built for it: silent for four threads
//! that share the four voices with different options, and for speech during a registration; it reports two
//! registrations at once.
//!
//! Not here: what callers hear of (words as they spelled them, sentences), which is [`engine`](crate::engine)'s,
//! and what flite survives as input, which is [`text`](crate::text)'s.

use crate::{text::Sayable, voice::Voice};
use libloading::Library;
use std::{
    any::Any,
    ffi::{CStr, c_char, c_float, c_int, c_void},
    marker::{PhantomData, PhantomPinned},
    mem::{ManuallyDrop, offset_of},
    ops::{ControlFlow, RangeInclusive},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    slice,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// flite, or one of its voices, could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The dynamic linker did not find the library, or could not open it.
    #[error(
        "cannot open {library}, a part of the Debian package `libflite1`; install it with `apt-get install libflite1`"
    )]
    Library {
        /// File name that was asked for.
        library: &'static str,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
    /// The library is not the flite that this plugin knows.
    #[error(
        "{library} has no `{symbol}`, so it is not flite 2; the Debian package `libflite1` 2.2 has it: \
         `apt-get install libflite1`"
    )]
    Symbol {
        /// File name of the library.
        library: &'static str,
        /// Function that it should have.
        symbol: String,
        /// What the dynamic linker says.
        source: libloading::Error,
    },
    /// The library of the voice opened, and its own function made no voice.
    #[error("{library} did not register its voice")]
    Voice {
        /// File name of the library.
        library: &'static str,
    },
}

/// flite gave up on an utterance; no input is known to cause it.
#[derive(Debug)]
pub(crate) struct Refused;

/// How fast speech may be asked for: 1.0 is the voice's own speed.
pub(crate) const SPEED: RangeInclusive<f32> = 0.5..=2.0;

/// What the mean pitch may be. Source: flite keeps every pitch of kal16 within 50..=500 (`us_f0_model.c`), and
/// of the others within 50..=700 (`cst_cg.c`).
pub(crate) const PITCH_HZ: RangeInclusive<f32> = 50.0..=500.0;

/// A run of samples as flite makes it; on the first one of an utterance the times of its tokens are known.
pub(crate) struct Chunk<'a> {
    pub(crate) samples: &'a [i16],
    pub(crate) sample_rate_hz: u32,
    pub(crate) tokens: Vec<Token>,
}

/// One token of flite's: a word of the input without its punctuation, that is heard from `start` to `end`.
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

/// The opened library: nothing but functions, each valid for the rest of the process.
pub(crate) struct Flite {
    voices: Mutex<[Option<VoiceHandle>; Voice::ALL.len()]>,
    new_utterance: unsafe extern "C" fn() -> *mut RawUtterance,
    delete_utterance: unsafe extern "C" fn(*mut RawUtterance),
    utt_set_input_text: unsafe extern "C" fn(*mut RawUtterance, *const c_char) -> c_int,
    utt_init: unsafe extern "C" fn(*mut RawUtterance, *mut RawVoice) -> *mut RawUtterance,
    utt_synth: unsafe extern "C" fn(*mut RawUtterance) -> *mut RawUtterance,
    utt_relation: unsafe extern "C" fn(*const RawUtterance, *const c_char) -> *mut RawRelation,
    utt_relation_present: unsafe extern "C" fn(*mut RawUtterance, *const c_char) -> c_int,
    relation_head: unsafe extern "C" fn(*mut RawRelation) -> *mut RawItem,
    item_next: unsafe extern "C" fn(*const RawItem) -> *mut RawItem,
    path_to_item: unsafe extern "C" fn(*const RawItem, *const c_char) -> *mut RawItem,
    ffeature_float: unsafe extern "C" fn(*const RawItem, *const c_char) -> c_float,
    ffeature_string: unsafe extern "C" fn(*const RawItem, *const c_char) -> *const c_char,
    get_param_float: unsafe extern "C" fn(*const RawFeatures, *const c_char, c_float) -> c_float,
    feat_set: unsafe extern "C" fn(*mut RawFeatures, *const c_char, *const RawVal),
    feat_set_float: unsafe extern "C" fn(*mut RawFeatures, *const c_char, c_float),
    new_streaming_info: unsafe extern "C" fn() -> *mut RawStreamingInfo,
    streaming_info_val: unsafe extern "C" fn(*const RawStreamingInfo) -> *mut RawVal,
}

impl Flite {
    /// Opens `libflite.so.1`, for good: it is never closed.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the library, or a function of it, is missing.
    pub(crate) fn open() -> Result<Flite, LoadError> {
        const LIBRARY: &str = "libflite.so.1";
        let library = open(LIBRARY)?;
        // SAFETY: each field's type is the function's declaration in flite 2.2's headers, and `flite_add_lang`
        // (called by nobody) came with flite 2.0: libraries of flite 1.x have the same file name, but call back
        // with other arguments.
        unsafe {
            symbol::<unsafe extern "C" fn()>(&library, LIBRARY, c"flite_add_lang")?;
            let init: unsafe extern "C" fn() -> c_int = symbol(&library, LIBRARY, c"flite_init")?;
            init();
            Ok(Flite {
                voices: Mutex::new([None; Voice::ALL.len()]),
                new_utterance: symbol(&library, LIBRARY, c"new_utterance")?,
                delete_utterance: symbol(&library, LIBRARY, c"delete_utterance")?,
                utt_set_input_text: symbol(&library, LIBRARY, c"utt_set_input_text")?,
                utt_init: symbol(&library, LIBRARY, c"utt_init")?,
                utt_synth: symbol(&library, LIBRARY, c"utt_synth")?,
                utt_relation: symbol(&library, LIBRARY, c"utt_relation")?,
                utt_relation_present: symbol(&library, LIBRARY, c"utt_relation_present")?,
                relation_head: symbol(&library, LIBRARY, c"relation_head")?,
                item_next: symbol(&library, LIBRARY, c"item_next")?,
                path_to_item: symbol(&library, LIBRARY, c"flite_path_to_item")?,
                ffeature_float: symbol(&library, LIBRARY, c"flite_ffeature_float")?,
                ffeature_string: symbol(&library, LIBRARY, c"flite_ffeature_string")?,
                get_param_float: symbol(&library, LIBRARY, c"flite_get_param_float")?,
                feat_set: symbol(&library, LIBRARY, c"flite_feat_set")?,
                feat_set_float: symbol(&library, LIBRARY, c"flite_feat_set_float")?,
                new_streaming_info: symbol(&library, LIBRARY, c"new_audio_streaming_info")?,
                streaming_info_val: symbol(&library, LIBRARY, c"audio_streaming_info_val")?,
            })
        }
    }

    /// Gives the voice, opening and registering it the first time. One caller at a time does that; the others wait.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the voice's library is missing or makes no voice.
    pub(crate) fn voice(&self, voice: Voice) -> Result<VoiceHandle, LoadError> {
        // A panic under this lock leaves at worst a voice unregistered, so a poisoned lock is as good as another.
        let mut voices = self.voices.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut voices[voice as usize];
        if let Some(handle) = *slot {
            return Ok(handle);
        }
        let library = open(voice.library())?;
        // SAFETY: the voices of flite declare `cst_voice *register_cmu_us_X(const char *voxdir)`, ignore `voxdir`,
        // and write globals, which the lock around this call keeps to one thread.
        let raw = unsafe {
            let register: unsafe extern "C" fn(*const c_char) -> *mut RawVoice =
                symbol(&library, voice.library(), voice.register_symbol())?;
            register(std::ptr::null())
        };
        let raw = NonNull::new(raw).ok_or(LoadError::Voice { library: voice.library() })?;
        Ok(*slot.insert(VoiceHandle(raw)))
    }

    /// Speaks one sentence and hands the audio to `sink` while it is being made.
    ///
    /// Times of tokens are relative to the first sample. When `sink` breaks, flite stops after the current chunk.
    ///
    /// # Errors
    ///
    /// [`Refused`] when flite gives up.
    ///
    /// # Panics
    ///
    /// When `speed` is not in [`SPEED`] or `pitch_hz` not in [`PITCH_HZ`]; with the panic of `sink`, once flite has
    /// returned and its memory is freed.
    pub(crate) fn speak(
        &self,
        voice: VoiceHandle,
        sentence: &Sayable,
        speed: f32,
        pitch_hz: Option<f32>,
        sink: &mut dyn FnMut(Chunk<'_>) -> ControlFlow<()>,
    ) -> Result<(), Refused> {
        // Not left to the caller alone: flite computes the sizes of its buffers from these two.
        assert!(SPEED.contains(&speed), "speed {speed} is checked by the engine");
        assert!(pitch_hz.is_none_or(|pitch| PITCH_HZ.contains(&pitch)), "pitch is checked by the engine");

        let utterance = Utterance::new(self).ok_or(Refused)?;
        let mut stream = Stream { utterance: &utterance, tokens_are_due: true, sink, panic: None };
        let stream_pointer = &raw mut stream;
        // SAFETY: `utterance` is alive until the end of this function and `voice` for good. Names of features are
        // kept as pointers by flite, and are literals. The text is copied, and a `Sayable` is text that flite's
        // buffers can hold. The streaming info is flite's, is owned by the utterance from `feat_set` on, and has
        // the layout asserted below; its `userdata` is live and otherwise untouched while `utt_synth` runs, the only
        // call that uses it.
        let spoken = unsafe {
            let raw = utterance.raw.as_ptr();
            (self.utt_set_input_text)(raw, sentence.as_c_str().as_ptr());
            (self.utt_init)(raw, voice.0.as_ptr());
            let features = (*raw).features;
            // A voice can have a stretch of its own (kal16: 1.1), so ours is relative to that.
            let stretch = (self.get_param_float)(features, c"duration_stretch".as_ptr(), 1.0);
            (self.feat_set_float)(features, c"duration_stretch".as_ptr(), stretch / speed);
            if let Some(pitch_hz) = pitch_hz {
                (self.feat_set_float)(features, c"int_f0_target_mean".as_ptr(), pitch_hz);
            }
            let info = (self.new_streaming_info)();
            if info.is_null() {
                return Err(Refused);
            }
            (*info).min_buffsize = MIN_CHUNK_SAMPLES;
            (*info).asc = Some(on_audio);
            (*info).userdata = stream_pointer.cast();
            (self.feat_set)(features, c"streaming_info".as_ptr(), (self.streaming_info_val)(info));
            (self.utt_synth)(raw)
        };
        let panic = stream.panic.take();
        drop(utterance);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        if spoken.is_null() { Err(Refused) } else { Ok(()) }
    }
}

/// A registered voice: read by flite, never written again, never deleted.
#[derive(Clone, Copy)]
pub(crate) struct VoiceHandle(NonNull<RawVoice>);

// SAFETY: flite only reads a registered voice while it speaks (see the head of this file), and nothing in this
// file writes one: features are set on utterances.
unsafe impl Send for VoiceHandle {}
// SAFETY: as for `Send`.
unsafe impl Sync for VoiceHandle {}

/// Owns one utterance of flite's, with everything made for it: its text, wave and streaming info.
struct Utterance<'a> {
    flite: &'a Flite,
    raw: NonNull<RawUtterance>,
}

impl<'a> Utterance<'a> {
    fn new(flite: &'a Flite) -> Option<Self> {
        // SAFETY: takes nothing, and its result is ours to delete.
        let raw = unsafe { (flite.new_utterance)() };
        NonNull::new(raw).map(|raw| Utterance { flite, raw })
    }

    /// Lists the tokens that are heard, in order, once flite has decided on the length of every segment.
    fn tokens(&self) -> Vec<Token> {
        let flite = self.flite;
        let mut tokens = Vec::new();
        // SAFETY: `raw` lives as long as `self`. A missing relation would end the process, so its presence is asked
        // first. Items are read here and not kept; these accessors take a null item as an absent one, and a path
        // that leads nowhere gives null. Every token has a name, as a string of C, copied before the next call.
        unsafe {
            if (flite.utt_relation_present)(self.raw.as_ptr(), c"Token".as_ptr()) == 0 {
                return tokens;
            }
            let relation = (flite.utt_relation)(self.raw.as_ptr(), c"Token".as_ptr());
            let mut item = (flite.relation_head)(relation);
            while !item.is_null() {
                if let Some((start, end)) = self.times(item) {
                    let name = CStr::from_ptr((flite.ffeature_string)(item, c"name".as_ptr()));
                    tokens.push(Token { name: name.to_string_lossy().into_owned(), start, end });
                }
                item = (flite.item_next)(item);
            }
        }
        tokens
    }

    /// Finds when a token is heard: from its first segment to its last. `None` for one without a sound.
    ///
    /// # Safety
    ///
    /// `token` is an item of this utterance's relation `Token`.
    unsafe fn times(&self, token: *const RawItem) -> Option<(Duration, Duration)> {
        let flite = self.flite;
        let mut times: Option<(f32, f32)> = None;
        // SAFETY: as in `tokens`. A segment before which there is none starts at 0, which is also what
        // `flite_ffeature_float` gives for a feature that is not there.
        unsafe {
            let mut word = (flite.path_to_item)(token, c"daughter1".as_ptr());
            while !word.is_null() {
                let first =
                    (flite.path_to_item)(word, c"R:SylStructure.daughter1.daughter1.R:Segment".as_ptr());
                let last =
                    (flite.path_to_item)(word, c"R:SylStructure.daughtern.daughtern.R:Segment".as_ptr());
                if !first.is_null() && !last.is_null() {
                    let end = (flite.ffeature_float)(last, c"end".as_ptr());
                    let start = match times {
                        Some((start, _)) => start,
                        None => (flite.ffeature_float)(first, c"p.end".as_ptr()),
                    };
                    times = Some((start, end));
                }
                word = (flite.item_next)(word);
            }
        }
        let (start, end) = times?;
        Some((Duration::try_from_secs_f32(start).ok()?, Duration::try_from_secs_f32(end).ok()?))
    }
}

impl Drop for Utterance<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, deleted here only, and no item of it outlives a method of this type.
        unsafe { (self.flite.delete_utterance)(self.raw.as_ptr()) }
    }
}

/// What [`on_audio`] finds behind `userdata`.
struct Stream<'a> {
    utterance: &'a Utterance<'a>,
    tokens_are_due: bool,
    sink: &'a mut dyn FnMut(Chunk<'_>) -> ControlFlow<()>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Receives samples `start..start + size` of the wave in the making.
unsafe extern "C" fn on_audio(
    wave: *const RawWave,
    start: c_int,
    size: c_int,
    _last: c_int,
    info: *mut RawStreamingInfo,
) -> c_int {
    // SAFETY: flite passes the info that `speak` made, whose `userdata` is the `Stream` of that very call, and flite
    // calls back on the thread that runs it, one call at a time.
    let stream = unsafe { &mut *(*info).userdata.cast::<Stream<'_>>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let (Ok(start), Ok(size)) = (usize::try_from(start), usize::try_from(size)) else {
            return ControlFlow::Continue(());
        };
        // SAFETY: flite passes a wave whose samples up to `start + size` are made, and leaves it alone during this
        // call.
        let (samples, sample_rate) =
            unsafe { (slice::from_raw_parts((*wave).samples.add(start), size), (*wave).sample_rate) };
        let tokens =
            if std::mem::take(&mut stream.tokens_are_due) { stream.utterance.tokens() } else { Vec::new() };
        if samples.is_empty() && tokens.is_empty() {
            return ControlFlow::Continue(());
        }
        (stream.sink)(Chunk { samples, sample_rate_hz: sample_rate.unsigned_abs(), tokens })
    }));
    match outcome {
        Ok(ControlFlow::Continue(())) => STREAM_CONTINUE,
        Ok(ControlFlow::Break(())) => STREAM_STOP,
        Err(panic) => {
            stream.panic = Some(panic);
            STREAM_STOP
        }
    }
}

/// Opens a library and never closes it: voices, functions and constants of it stay in use.
fn open(library: &'static str) -> Result<ManuallyDrop<Library>, LoadError> {
    // SAFETY: the libraries of flite have no initialisers of their own; that the file of this name is flite is the
    // system's promise.
    let opened = unsafe { Library::new(library) };
    opened.map(ManuallyDrop::new).map_err(|source| LoadError::Library { library, source })
}

/// Looks a function up.
///
/// # Safety
///
/// `T` is the type of that function.
unsafe fn symbol<T: Copy>(
    library: &ManuallyDrop<Library>,
    file: &'static str,
    name: &CStr,
) -> Result<T, LoadError> {
    // SAFETY: the caller vouches for `T`; the library is never closed, so the function stays.
    match unsafe { library.get::<T>(name) } {
        Ok(symbol) => Ok(*symbol),
        Err(source) => {
            Err(LoadError::Symbol { library: file, symbol: name.to_string_lossy().into_owned(), source })
        }
    }
}

/// A chunk has more samples than this, unless it is the last: 20 ms, the tick of telephony, with the other voices'
/// frames of 80 samples.
const MIN_CHUNK_SAMPLES: c_int = 319;

/// `CST_AUDIO_STREAM_CONT` of `cst_audio.h`.
const STREAM_CONTINUE: c_int = 0;

/// `CST_AUDIO_STREAM_STOP` of `cst_audio.h`.
const STREAM_STOP: c_int = -1;

/// A C struct that is only ever pointed at.
macro_rules! opaque {
    ($($name:ident is $c_name:literal),* $(,)?) => {$(
        #[doc = concat!("`", $c_name, "`, known by address only.")]
        #[repr(C)]
        struct $name {
            _data: [u8; 0],
            _marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}
opaque!(
    RawVoice is "cst_voice",
    RawFeatures is "cst_features",
    RawRelation is "cst_relation",
    RawItem is "cst_item",
    RawVal is "cst_val",
);

/// `cst_utterance`, of which the features are the first field; flite has no accessor for them.
#[repr(C)]
struct RawUtterance {
    features: *mut RawFeatures,
}

/// `cst_wave`; its accessors are macros.
#[repr(C)]
struct RawWave {
    kind: *const c_char,
    sample_rate: c_int,
    num_samples: c_int,
    num_channels: c_int,
    samples: *const i16,
}

/// `cst_audio_streaming_info`, which flite 2 makes and the caller fills in.
#[repr(C)]
struct RawStreamingInfo {
    min_buffsize: c_int,
    asc: Option<unsafe extern "C" fn(*const RawWave, c_int, c_int, c_int, *mut RawStreamingInfo) -> c_int>,
    utt: *const RawUtterance,
    item: *const RawItem,
    userdata: *mut c_void,
}

// Source: `offsetof` and `sizeof` printed by a C program with the headers of `flite1-dev` 2.2-5, amd64.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(offset_of!(RawUtterance, features) == 0);
    assert!(offset_of!(RawWave, sample_rate) == 8);
    assert!(offset_of!(RawWave, samples) == 24 && size_of::<RawWave>() == 32);
    assert!(offset_of!(RawStreamingInfo, asc) == 8);
    assert!(offset_of!(RawStreamingInfo, userdata) == 32 && size_of::<RawStreamingInfo>() == 40);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_named_with_its_package() {
        let error = open("libflite_absent.so.1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot open libflite_absent.so.1, a part of the Debian package `libflite1`; install it with \
             `apt-get install libflite1`"
        );
    }

    #[test]
    fn library_that_is_no_flite_is_refused() {
        const LIBRARY: &str = "libc.so.6";
        let library = open(LIBRARY).unwrap();
        // SAFETY: the type does not matter for a function that is not there.
        let found = unsafe { symbol::<unsafe extern "C" fn()>(&library, LIBRARY, c"flite_init") };
        assert!(
            found.unwrap_err().to_string().starts_with("libc.so.6 has no `flite_init`, so it is not flite 2")
        );
    }
}

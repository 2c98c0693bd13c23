//! Tests with real speech and with things that are not speech, through the public names only.
//!
//! The recordings are those of the Debian package `pocketsphinx-testdata`; a test without them fails and says so.

use std::{fs, path::Path, time::Duration};

use crate::detector::{Detector, SAMPLE_RATE_HZ, Settings, Signal};

const RECORDINGS: &str = "/usr/share/pocketsphinx/test/data";

/// A turn as `[start, end of speech]`, in milliseconds.
type Turn = [u64; 2];

/// Where a human hears the one sentence of each recording, as measured when the defaults were chosen.
const SENTENCES: &[(&str, Turn)] = &[
    ("goforward.raw", [496, 2240]),
    ("numbers.raw", [496, 3440]),
    ("something.raw", [464, 2224]),
    ("tidigits/dhd.2934z.raw", [256, 1664]),
    ("cards/001.wav", [160, 1072]),
    ("cards/002.wav", [0, 1792]),
    ("cards/003.wav", [96, 1536]),
    ("cards/004.wav", [208, 1312]),
    ("cards/005.wav", [192, 3360]),
    ("librivox/sense_and_sensibility_01_austen_64kb-0870.wav", [224, 6864]),
    ("librivox/sense_and_sensibility_01_austen_64kb-0880.wav", [256, 2848]),
    ("librivox/sense_and_sensibility_01_austen_64kb-0890.wav", [240, 5168]),
    ("librivox/sense_and_sensibility_01_austen_64kb-0920.wav", [256, 5904]),
    ("librivox/sense_and_sensibility_01_austen_64kb-0930.wav", [272, 3408]),
];

fn load(name: &str) -> Vec<i16> {
    let path = Path::new(RECORDINGS).join(name);
    let bytes = fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; install the package pocketsphinx-testdata", path.display())
    });
    if name.ends_with(".wav") {
        let mut wav = hound::WavReader::new(&bytes[..]).expect("a readable header");
        assert_eq!((wav.spec().sample_rate, wav.spec().channels), (SAMPLE_RATE_HZ, 1), "{name}");
        wav.samples::<i16>().map(|sample| sample.expect("a whole sample")).collect()
    } else {
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

fn silence(ms: usize) -> Vec<i16> {
    vec![0; ms * 16]
}

fn signals(settings: &Settings, samples: &[i16], chunk: usize) -> Vec<Signal> {
    let mut detector = Detector::new(settings.clone());
    let mut signals = Vec::new();
    for chunk in samples.chunks(chunk) {
        detector.push(chunk, &mut |signal| signals.push(signal));
    }
    detector.finish(&mut |signal| signals.push(signal));
    signals
}

fn turns(settings: &Settings, samples: &[i16]) -> Vec<Turn> {
    let ms = |time: Duration| time.as_millis() as u64;
    let ended = |signal| match signal {
        Signal::TurnEnded { at, duration, .. } => Some([ms(at - duration), ms(at)]),
        _ => None,
    };
    signals(settings, samples, 320).into_iter().filter_map(ended).collect()
}

/// Seeded noise, so that every run hears the same.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Normal with deviation 1: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    fn white(&mut self, deviation: f32, count: usize) -> Vec<i16> {
        (0..count).map(|_| (self.normal() * deviation) as i16).collect()
    }

    fn add_white(&mut self, deviation: f32, samples: &mut [i16]) {
        for sample in samples {
            *sample = sample.saturating_add((self.normal() * deviation) as i16);
        }
    }
}

/// Clicks of 1 ms on a quiet floor.
fn clicks(per_second: usize, level: i16, seconds: usize) -> Vec<i16> {
    let period = SAMPLE_RATE_HZ as usize / per_second;
    let mut noise = Noise(5);
    (0..SAMPLE_RATE_HZ as usize * seconds)
        .map(|i| match i % period {
            0..16 => level * (1 - 2 * (i % 2) as i16),
            _ => (noise.normal() * 3.0) as i16,
        })
        .collect()
}

#[track_caller]
fn check_same(name: &str, found: &[Turn], want: &[Turn], tolerance_ms: u64) {
    let near = |a: u64, b: u64| a.abs_diff(b) <= tolerance_ms;
    let same = found.len() == want.len()
        && found.iter().zip(want).all(|(a, b)| near(a[0], b[0]) && near(a[1], b[1]));
    assert!(same, "{name}: found {found:?}, want {want:?}, within {tolerance_ms} ms");
}

#[test]
fn each_recording_is_one_turn_at_every_usual_hangover() {
    for (name, want) in SENTENCES {
        let mut samples = load(name);
        samples.extend(silence(1500));
        for hangover_ms in [500, 800, 1000] {
            let settings = Settings { hangover_ms, ..Settings::default() };
            check_same(&format!("{name} at {hangover_ms} ms"), &turns(&settings, &samples), &[*want], 48);
        }
    }
}

#[test]
fn input_that_ends_in_speech_ends_its_turn() {
    let samples = load("goforward.raw");
    check_same("cut in \"ten\"", &turns(&Settings::default(), &samples[..24_000]), &[[496, 1488]], 48);
}

#[test]
fn sentences_with_room_between_them_are_turns_of_their_own_and_start_where_they_start() {
    let (mut samples, mut want) = (silence(1000), Vec::new());
    for (name, [start, end]) in SENTENCES {
        let offset = samples.len() as u64 / 16;
        want.push([offset + start, offset + end]);
        samples.extend(load(name));
        samples.extend(silence(1500));
    }
    // Wider than for one recording alone: what the network heard before moves its first probabilities, most of all
    // in `cards/002.wav`, which begins within a sound.
    check_same("all", &turns(&Settings::default(), &samples), &want, 300);
}

#[test]
fn hangover_longer_than_the_room_joins_sentences() {
    let go = load("goforward.raw");
    let samples = [&go[..], &go[..], &silence(3000)].concat();
    // From the end of one "meters" to the next "go" there are about 1050 ms.
    for (hangover_ms, count) in [(500, 2), (800, 2), (1500, 1)] {
        let settings = Settings { hangover_ms, ..Settings::default() };
        assert_eq!(turns(&settings, &samples).len(), count, "{hangover_ms} ms");
    }
}

#[test]
fn every_sentence_is_found_once_in_noise() {
    // Deviation 300 is about 20 dB below these voices, 1000 about 10 dB.
    for deviation in [30.0, 100.0, 300.0] {
        let mut samples = silence(1000);
        for (name, _) in SENTENCES {
            samples.extend(load(name));
            samples.extend(silence(1500));
        }
        Noise(99).add_white(deviation, &mut samples);
        let found = turns(&Settings::default(), &samples);
        assert_eq!(found.len(), SENTENCES.len(), "deviation {deviation}: {found:?}");
    }
}

#[test]
fn silence_noise_and_clicks_are_no_turn() {
    let minute = SAMPLE_RATE_HZ as usize * 60;
    let hum: Vec<i16> = (0..minute).map(|i| ((i as f32 * 0.039_27).sin() * 5000.0) as i16).collect();
    let cases: &[(&str, Vec<i16>)] = &[
        ("digital silence", silence(60_000)),
        ("constant offset", vec![4000; minute]),
        ("white noise at 10", Noise(7).white(10.0, minute)),
        ("white noise at 100", Noise(7).white(100.0, minute)),
        ("white noise at 1000", Noise(7).white(1000.0, minute)),
        ("white noise at 3000", Noise(7).white(3000.0, minute)),
        ("a click per second", clicks(1, 30_000, 60)),
        ("typing", clicks(5, 8_000, 60)),
        ("20 clicks per second", clicks(20, 30_000, 60)),
        ("100 Hz hum", hum),
    ];
    for (name, samples) in cases {
        assert_eq!(turns(&Settings::default(), samples), [] as [Turn; 0], "{name}");
    }
}

#[test]
fn full_scale_nonsense_gives_probabilities_and_no_panic() {
    let second = SAMPLE_RATE_HZ as usize;
    let mut noise = Noise(3);
    let square: Vec<i16> = (0..second).map(|i| if i / 8 % 2 == 0 { i16::MIN } else { i16::MAX }).collect();
    let random: Vec<i16> = (0..second).map(|_| (noise.uniform() * 65_535.0 - 32_768.0) as i16).collect();
    for samples in [vec![i16::MIN; second], square, random] {
        let mut detector = Detector::new(Settings::default());
        for chunk in samples.chunks(256) {
            detector.push(chunk, &mut |_| {});
            assert!((0.0..=1.0).contains(&detector.probability()));
        }
        detector.finish(&mut |_| {});
    }
}

#[test]
fn grouping_of_samples_changes_nothing() {
    let samples = load("cards/005.wav");
    let want = signals(&Settings::default(), &samples, samples.len());
    assert!(want.len() >= 4, "{want:?}");
    for chunk in [1, 7, 160, 255, 256, 257, 320, 512, 1000, 4096] {
        assert_eq!(signals(&Settings::default(), &samples, chunk), want, "chunks of {chunk}");
    }
}

#[test]
fn decided_counts_whole_frames_and_starts_over_after_finish() {
    let samples = load("goforward.raw");
    let mut detector = Detector::new(Settings::default());
    let mut first = Vec::new();
    detector.push(&samples[..300], &mut |signal| first.push(signal));
    assert_eq!((detector.decided_samples(), detector.decided()), (256, Duration::from_millis(16)));
    detector.push(&[], &mut |_| panic!("nothing was pushed"));
    detector.push(&samples[300..], &mut |signal| first.push(signal));
    assert_eq!(detector.decided_samples(), samples.len() as u64 / 256 * 256);
    detector.finish(&mut |signal| first.push(signal));
    assert_eq!(detector.decided_samples(), 0);

    let mut second = Vec::new();
    detector.push(&samples, &mut |signal| second.push(signal));
    detector.finish(&mut |signal| second.push(signal));
    assert_eq!(first, second, "the network forgets what it heard before");
}

#[test]
fn turn_is_reported_when_min_speech_is_heard_and_ended_when_the_hangover_is_over() {
    let mut samples = load("goforward.raw");
    samples.extend(silence(1000));
    let mut detector = Detector::new(Settings::default());
    let (mut started, mut ended) = (None, None);
    for chunk in samples.chunks(256) {
        let mut turn = None;
        detector.push(chunk, &mut |signal| match signal {
            Signal::TurnStarted { .. } | Signal::TurnEnded { .. } => turn = Some(signal),
            _ => {}
        });
        match turn {
            Some(Signal::TurnStarted { at, .. }) => started = Some(detector.decided() - at),
            Some(Signal::TurnEnded { at, trailing_silence, .. }) => {
                assert_eq!(trailing_silence, Duration::from_millis(800));
                ended = Some(detector.decided() - at);
            }
            _ => {}
        }
    }
    // 208 ms of speech, and 48 ms that the start lies before the threshold was crossed.
    assert_eq!(started, Some(Duration::from_millis(256)));
    assert_eq!(ended, Some(Duration::from_millis(800)));
}

//! Decoders, with the real library and recordings of people.

use super::*;
use crate::testing::{decoder, library, recording, transcripts, with_grammar};

fn hear(decoder: &mut Decoder, samples: &[i16], chunk: usize) -> Hypothesis {
    decoder.start_utterance().unwrap();
    for chunk in samples.chunks(chunk) {
        decoder.process(chunk).unwrap();
    }
    decoder.finish().unwrap()
}

/// Words to add, to leave out and to replace, to get from one text to the other.
fn word_errors(want: &str, got: &str) -> usize {
    let got: Vec<&str> = got.split_whitespace().collect();
    let mut row: Vec<usize> = (0..=got.len()).collect();
    for (i, want) in want.split_whitespace().enumerate() {
        let mut next = vec![i + 1];
        for (j, got) in got.iter().enumerate() {
            let replaced = row[j] + usize::from(want != *got);
            next.push(replaced.min(row[j + 1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row[row.len() - 1]
}

/// Errors and words of a set, each recording as one utterance that is streamed in chunks of 20 ms.
fn errors_of(decoder: &mut Decoder, set: &str) -> (usize, usize) {
    let mut sum = (0, 0);
    for (name, said) in transcripts(set) {
        let heard = hear(decoder, &recording(&name), 320);
        let errors = word_errors(&said, &heard.text);
        println!("{errors} {:.2} {name}: {}", heard.confidence, heard.text);
        sum = (sum.0 + errors, sum.1 + said.split_whitespace().count());
    }
    sum
}

#[track_caller]
fn check_times(heard: &Hypothesis, samples: usize) {
    let mut before = Duration::ZERO;
    for word in &heard.words {
        assert!(before <= word.start && word.start < word.end, "{:?}", heard.words);
        before = word.end;
    }
    let length = Duration::from_secs_f64(samples as f64 / f64::from(SAMPLE_RATE_HZ));
    assert!(before <= length, "{before:?} is after the end at {length:?}");
}

#[test]
fn grammar_makes_commands_exact() {
    let mut decoder = decoder(&with_grammar("goforward.gram"));
    let samples = recording("goforward.raw");
    let heard = hear(&mut decoder, &samples, 320);
    assert_eq!(heard.text, "go forward ten meters");
    check_times(&heard, samples.len());
    // As PocketSphinx 0.8's own tools place them: 0.46, 0.64, 1.17 and 1.53 s.
    let starts: Vec<u128> = heard.words.iter().map(|word| word.start.as_millis() / 100).collect();
    assert_eq!(starts, [4, 6, 11, 15]);
}

#[test]
fn confidence_tells_whether_somebody_said_what_the_grammar_has() {
    let mut decoder = decoder(&with_grammar("cards/cards.gram"));
    for (name, said) in transcripts("cards") {
        let heard = hear(&mut decoder, &recording(&name), 320);
        assert_eq!(heard.text, said);
        assert!(heard.confidence > 0.5, "{} for {name}", heard.confidence);
    }
    let others = transcripts("librivox").into_iter().map(|(name, _)| name);
    for name in others.chain(["goforward.raw".into(), "something.raw".into()]) {
        let heard = hear(&mut decoder, &recording(&name), 320);
        assert!(heard.confidence < 0.3, "{} for {name}: {}", heard.confidence, heard.text);
    }
}

#[test]
fn free_speech_is_understood_as_well_as_measured() {
    let mut decoder = decoder(&Settings::default());
    let (librivox, words) = errors_of(&mut decoder, "librivox");
    // 23 of 71 when measured; docs say at most 40 %.
    assert!(librivox * 100 <= words * 40, "{librivox} of {words} words are wrong");
    let (cards, words) = errors_of(&mut decoder, "cards");
    assert!(cards * 100 <= words * 20, "{cards} of {words} words are wrong");
}

#[test]
fn result_depends_on_the_samples_alone() {
    let mut decoder = decoder(&Settings::default());
    let (first, other) = (recording("cards/002.wav"), recording("cards/005.wav"));
    let fresh = hear(&mut decoder, &first, 320);
    assert!(!fresh.words.is_empty());
    let others = hear(&mut decoder, &other, 320);
    // After something else, after something that was given up, and with other chunks.
    assert_eq!(hear(&mut decoder, &first, 320), fresh);
    decoder.start_utterance().unwrap();
    decoder.process(&other[..20_000]).unwrap();
    decoder.abandon();
    assert_eq!(decoder.partial(), None);
    assert_eq!(hear(&mut decoder, &first, 1), fresh);
    decoder.start_utterance().unwrap();
    decoder.process(&other[..20_000]).unwrap();
    assert_eq!(hear(&mut decoder, &first, usize::MAX), fresh);
    assert_eq!(hear(&mut decoder, &other, 777), others);
}

#[test]
fn partials_come_while_somebody_speaks() {
    let mut decoder = decoder(&Settings::default());
    let samples = recording("cards/005.wav");
    decoder.start_utterance().unwrap();
    assert_eq!(decoder.partial(), None);
    let mut partials = Vec::new();
    for chunk in samples.chunks(320) {
        decoder.process(chunk).unwrap();
        partials.extend(decoder.partial());
    }
    partials.dedup();
    println!("{partials:#?}");
    assert!(partials.len() >= 5, "{partials:?}");
    assert!(partials.iter().all(|text| !text.contains(['<', '(', '['])), "{partials:?}");
    check_times(&decoder.finish().unwrap(), samples.len());
    assert_eq!(decoder.partial(), None);
}

#[test]
fn nothing_said_is_nothing_understood() {
    let mut free = decoder(&Settings::default());
    let mut bound = decoder(&with_grammar("goforward.gram"));
    for decoder in [&mut free, &mut bound] {
        decoder.start_utterance().unwrap();
        assert_eq!(decoder.finish().unwrap(), Hypothesis::default());
        decoder.start_utterance().unwrap();
        decoder.process(&[]).unwrap();
        decoder.start_utterance().unwrap();
        decoder.process(&[]).unwrap();
        assert_eq!(decoder.finish().unwrap(), Hypothesis::default());
        for samples in [1, 159, 160, 410, 3_200, 16_000] {
            hear(decoder, &vec![0; samples], 320);
            hear(decoder, &vec![i16::MIN; samples], 320);
            let square = (0..samples).map(|i| if i % 32 < 16 { i16::MAX } else { i16::MIN });
            hear(decoder, &square.collect::<Vec<_>>(), 320);
        }
        assert_eq!(hear(decoder, &vec![0; 32_001], 320).text, "");
    }
}

#[test]
fn long_utterance_is_decoded_in_parts() {
    let mut decoder = decoder(&Settings::default());
    let samples: Vec<i16> = transcripts("librivox").iter().flat_map(|(name, _)| recording(name)).collect();
    decoder.start_utterance().unwrap();
    decoder.process(&samples).unwrap();
    let first_part = decoder.utterance.as_ref().unwrap().offset;
    assert!((LONG_SEGMENT..LONGEST_SEGMENT).contains(&first_part), "no pause was found, {first_part}");
    let heard = decoder.finish().unwrap();
    let said: Vec<String> = transcripts("librivox").into_iter().map(|(_, said)| said).collect();
    let (errors, words) =
        (word_errors(&said.join(" "), &heard.text), said.join(" ").split_whitespace().count());
    assert!(errors * 100 <= words * 45, "{errors} of {words} words are wrong: {}", heard.text);
    check_times(&heard, samples.len());
    let last = heard.words[heard.words.len() - 1].start;
    assert!(last > Duration::from_secs(first_part / u64::from(SAMPLE_RATE_HZ) + 1), "{last:?}");
}

#[test]
#[ignore = "slow: takes half a minute of processor time"]
fn ten_minutes_do_no_harm() {
    let mut decoder = decoder(&with_grammar("goforward.gram"));
    let mut samples = recording("goforward.raw").repeat(220);
    samples.truncate(600 * SAMPLE_RATE_HZ as usize);
    let heard = hear(&mut decoder, &samples, 16_000);
    check_times(&heard, samples.len());
    assert_eq!(hear(&mut decoder, &recording("goforward.raw"), 320).text, "go forward ten meters");
}

#[test]
fn missing_files_are_named_with_their_package() {
    #[track_caller]
    fn check(settings: Settings, want: &str) {
        let error = settings.check().unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(Decoder::new(library(), &settings).unwrap_err().to_string(), want);
    }
    let default = Settings::default();
    check(
        Settings { model: Some("/nowhere".into()), ..default.clone() },
        "no acoustic model at /nowhere (wanted a directory with mdef, means, variances, transition_matrices and \
         sendump); the Debian package `pocketsphinx-en-us` has one for American English: `apt-get install \
         pocketsphinx-en-us`",
    );
    check(
        Settings { language_model: Some("/nowhere.lm".into()), ..default.clone() },
        "no language model at /nowhere.lm (wanted a file in ARPA's or PocketSphinx's format); the Debian package \
         `pocketsphinx-en-us` has one for American English: `apt-get install pocketsphinx-en-us`",
    );
    check(
        Settings { dictionary: Some("/nowhere.dict".into()), ..default.clone() },
        "no pronunciation dictionary at /nowhere.dict (wanted a text file: a word and its phones per line); the \
         Debian package `pocketsphinx-en-us` has one for American English: `apt-get install pocketsphinx-en-us`",
    );
    check(
        Settings { dictionary: Some("/usr".into()), ..default.clone() },
        "/usr is not a usable pronunciation dictionary (wanted a text file: a word and its phones per line); the \
         Debian package `pocketsphinx-en-us` has one for American English: `apt-get install pocketsphinx-en-us`",
    );
    let library = Library::open(Some(Path::new("/nowhere.so"))).unwrap_err();
    assert!(matches!(library, LoadError::Library { .. }));
    assert_eq!(
        library.to_string(),
        "cannot open PocketSphinx (tried /nowhere.so); the Debian package `libpocketsphinx3` has it: `apt-get \
         install libpocketsphinx3`"
    );
    let library = Library::open(Some(Path::new("libm.so.6"))).unwrap_err();
    assert!(matches!(library, LoadError::Symbol { .. }), "{library}");
}

#[test]
fn damaged_models_are_refused_before_they_end_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let original = Path::new("/usr/share/pocketsphinx/model/en-us/en-us");
    for file in fs::read_dir(original).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
    }
    let settings = Settings { model: Some(directory.path().to_owned()), ..Settings::default() };
    settings.check().unwrap();
    for name in ["mdef", "means", "variances", "transition_matrices", "sendump"] {
        let path = directory.path().join(name);
        fs::write(&path, if name == "sendump" { "" } else { "version https://git-lfs.github.com/spec/v1" })
            .unwrap();
        assert!(matches!(settings.check(), Err(Error::Unusable { path: found, .. }) if found == path));
        fs::copy(original.join(name), path).unwrap();
    }
    fs::write(directory.path().join("feat.params"), "-nfilt 20\n-samprate 8000.0\n").unwrap();
    assert!(matches!(settings.check(), Err(Error::SampleRate { found_hz: 8_000, .. })));
    fs::remove_file(directory.path().join("feat.params")).unwrap();
    settings.check().unwrap();
    fs::remove_file(directory.path().join("sendump")).unwrap();
    assert!(matches!(settings.check(), Err(Error::Missing { .. })));
    // What PocketSphinx itself finds out comes with the way to its log.
    let text = directory.path().join("text");
    fs::write(&text, "not a language model\n").unwrap();
    let settings = Settings { language_model: Some(text), ..Settings::default() };
    let error = Decoder::new(library(), &settings).unwrap_err();
    assert!(matches!(error, Error::Models { .. }), "{error}");
    assert!(error.to_string().contains("pocketsphinx_continuous -hmm /usr/share/"), "{error}");
}

#[test]
fn mistakes_in_a_grammar_are_named() {
    #[track_caller]
    fn check(rules: &str) -> Error {
        let grammar = Some(format!("#JSGF V1.0; grammar g; {rules}"));
        Decoder::new(library(), &Settings { grammar, ..Settings::default() }).unwrap_err()
    }
    let error = check("public <a> = go (forward | vosk) [xyzzy] Zork;");
    assert_eq!(
        error.to_string(),
        "/usr/share/pocketsphinx/model/en-us/cmudict-en-us.dict has no pronunciation for words of the grammar: Zork, \
         vosk, xyzzy"
    );
    let error = check("public <a> = go <direction>;");
    assert!(matches!(&error, Error::Grammar(GrammarError::UndefinedRule { .. })));
    assert_eq!(error.to_string(), "line 1 of the grammar: the rule <direction> is not defined");
    let error = check("go forward");
    assert_eq!(error.to_string(), "line 1 of the grammar: expected a rule: `<name> = ...;`, found `go`");
    let dictionary = tempfile::NamedTempFile::new().unwrap();
    fs::write(dictionary.path(), "go G OW\nforward F QQ\n").unwrap();
    let grammar = Some("#JSGF V1.0; grammar g; public <a> = go forward;".to_owned());
    let settings =
        Settings { grammar, dictionary: Some(dictionary.path().to_owned()), ..Settings::default() };
    let error = Decoder::new(library(), &settings).unwrap_err();
    assert!(matches!(&error, Error::Pronunciation { word, .. } if word == "forward"), "{error}");
}

#[test]
fn whatever_jsgf_can_say_is_understood() {
    #[track_caller]
    fn check(rules: &str) {
        let grammar = Some(format!("#JSGF V1.0; grammar g; {rules}"));
        let mut decoder = decoder(&Settings { grammar, ..Settings::default() });
        let heard = hear(&mut decoder, &recording("goforward.raw"), 320);
        assert_eq!(heard.text, "go forward ten meters");
        let words: Vec<&str> = heard.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(words, ["go", "forward", "ten", "meters"]);
    }
    check("public <a> = stop; public <b> = go forward ten meters; public <c> = turn;");
    check("public <a> = [please] go (forward | backward) [<n>] meters; <n> = ten | two;");
    check("public <a> = (go | forward | ten | meters)+;");
    check("public <a> = stop* (go | forward | ten | meters)* stop*;");
    check("public <a> = \"go forward\" ten {10} meters {unit};");
    check(
        "public <a> = /5/ <b> | /1/ <c>; <b> = go <d>; <c> = stop; <d> = /0/ ten | /7/ forward ten meters;",
    );
    check("public <a> = (go | forward | ten | meters) [<a>];");
    check("public <a> = go forward ten meters | <NULL>;");
}

/// Prints what is understood of the files in `FILES` (a path and what is said per line), with the grammar in
/// `GRAMMAR` if there is one, and in one pass if there is `SINGLE`.
#[test]
#[ignore = "slow: prints figures for the documentation"]
fn figures() {
    let settings = Settings {
        grammar: std::env::var("GRAMMAR").ok().map(|path| crate::grammar::text_of(&path).unwrap()),
        is_single_pass: std::env::var_os("SINGLE").is_some(),
        ..Settings::default()
    };
    let mut decoder = decoder(&settings);
    for set in ["librivox", "cards"] {
        println!("{set}: {:?}", errors_of(&mut decoder, set));
    }
    let files = std::env::var("FILES").map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    let mut sum = (0, 0);
    for (path, said) in files.lines().filter_map(|line| line.split_once(' ')) {
        let heard = hear(&mut decoder, &recording(path), 320);
        let errors = word_errors(said, &heard.text);
        println!("{errors} {:.2} {path}: {}", heard.confidence, heard.text);
        sum = (sum.0 + errors, sum.1 + said.split_whitespace().count());
    }
    println!("files: {sum:?}");
}

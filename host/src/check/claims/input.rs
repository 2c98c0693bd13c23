//! Input that is empty, huge, unusual or unreadable. The plugin may fail such a command, and must answer it; the session
//! goes on.

use antiphon_core::{AudioChunk, video::PixelFormat};
use antiphon_plugin_api::abi::Status;

use super::{about, exchange::expect_status};
use crate::{
    Kind,
    check::{
        Problem,
        material::{self, Input, ODD_TEXT},
        message::Checked,
        running::Context,
        session::Open,
    },
};

/// Gives each input in turn, in one session, which must work as ever afterwards.
fn survives(context: &Context, kind: Kind, inputs: Vec<Input>) -> Checked {
    let running = context.start()?;
    let session = running.open(kind)?;
    for input in &inputs {
        session.exchange(input)?;
    }
    goes_on(context, kind, &session)?;
    session.conclude()?;
    running.stop()
}

fn goes_on(context: &Context, kind: Kind, session: &Open) -> Checked {
    let outcome = session.exchange(&context.short_input(kind))?;
    // What the command line asks for may fail.
    if context.text.is_none() { session.completed(outcome) } else { Ok(()) }
}

pub(in crate::check) fn empty(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let inputs = match kind {
        Kind::Turn | Kind::Stt => {
            vec![Input::Audio(Vec::new()), material::piece(Vec::new()), material::piece(vec![0])]
        }
        Kind::Llm => vec![material::question(""), Input::Messages(Vec::new()), material::question(" \n")],
        Kind::Tts => ["", " ", "\n", ".", "-- ()"].map(|text| Input::Text(text.into())).into(),
        Kind::Vision => [PixelFormat::Gray8, PixelFormat::Rgb8, PixelFormat::Rgba8]
            .into_iter()
            .filter_map(|format| material::gradient(1, 1, format))
            .collect(),
    };
    survives(context, kind, inputs)
}

pub(in crate::check) fn odd(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let audio = |rate: u32, channels: u16, samples: Vec<i16>| {
        AudioChunk::new(samples, rate, channels).ok().map(|chunk| Input::Audio(vec![chunk]))
    };
    let texts = [
        ODD_TEXT,
        "????????",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "1e400 -0 ½ IIX 12:99",
    ];
    let inputs: Vec<Input> = match kind {
        Kind::Turn | Kind::Stt => [
            audio(8_000, 1, material::voice(100)),
            audio(48_000, 1, material::voice(100)),
            audio(16_000, 2, material::voice(100)),
            audio(44_100, 2, material::voice(50)),
            Some(material::piece(vec![i16::MIN; 1_000])),
            Some(material::piece(material::voice(100)[..333].to_vec())),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Kind::Llm => texts.map(material::question).into(),
        Kind::Tts => texts.map(|text| Input::Text(text.into())).into(),
        Kind::Vision => [
            (1, 500, PixelFormat::Rgb8),
            (500, 1, PixelFormat::Rgb8),
            (33, 7, PixelFormat::Gray8),
            (31, 31, PixelFormat::Rgba8),
        ]
        .into_iter()
        .filter_map(|(width, height, format)| material::gradient(width, height, format))
        .collect(),
    };
    survives(context, kind, inputs)
}

pub(in crate::check) fn huge(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let text = || "All work and no play makes a long text. ".repeat(2_500);
    let input = match kind {
        // As much as fits into the queues of the host.
        Kind::Turn | Kind::Stt => material::piece(material::voice(10_000)),
        Kind::Llm => material::question(&text()),
        Kind::Tts => Input::Text(text()),
        Kind::Vision => {
            material::gradient(3_840, 2_160, PixelFormat::Rgb8).expect("as many pixels as it says")
        }
    };
    let running = context.start()?;
    let session = running.open(kind)?;
    let token = session.begin(&input)?;
    if matches!(kind, Kind::Turn | Kind::Stt) {
        context.tell.stage("waiting for the end of ten seconds of audio");
        if !session.record.wait(context.patience.until, |state| state.has_ended(token)) {
            context.tell.warn(Problem::new(
                "ten seconds of audio took longer than the test has time",
                "work that keeps up with speech",
                "see whether that is so on an idle machine, and in a release build; --timeout gives it more",
            ));
            return session.conclude();
        }
    } else {
        // A slow plugin need not come to the end, but to an end.
        context.tell.stage("waiting for a few outputs of something huge");
        session
            .record
            .wait(context.patience.soon(), |state| state.said() > OUTPUTS || state.has_ended(token));
        context.tell.stage("cancelling something huge");
        session.cancel(token);
        session.finished_until(token, context.patience.soon())?;
    }
    goes_on(context, kind, &session)?;
    session.conclude()?;
    running.stop()
}

/// Outputs after which something huge is cancelled.
const OUTPUTS: usize = 20;

pub(in crate::check) fn garbage(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let session = running.open(kind)?;
    let mut all = Ok(());
    for (what, bytes) in [
        ("nothing", &[][..]),
        ("a byte that MessagePack does not have", b"\xc1"),
        ("a list in place of a map", b"\x93\x01\x02\x03"),
        ("a map without the fields", b"\x80"),
        ("a map that is cut off", b"\x84\xa4text"),
        ("a text that claims to have 4 GiB", b"\xdb\xff\xff\xff\xff"),
        ("a list that claims to have 4 billion items", b"\xdd\xff\xff\xff\xff"),
        ("lists within lists, far too deep", &[0x91; 20_000]),
    ] {
        context.tell.stage(format!("sending a request that is {what}"));
        let (_, status) = session.ask_bytes(bytes)?;
        let what = format!("a request that is {what}");
        let advice = "decode the request before it is accepted, and refuse what does not decode";
        all = all.and(expect_status(context, &what, status, Status::REFUSED, advice));
    }
    goes_on(context, kind, &session)?;
    session.conclude()?;
    all.and_then(|()| running.stop())
}

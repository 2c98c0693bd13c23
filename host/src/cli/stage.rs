//! The stages of a conversation in words, and why one has no plugin.

use antiphon_host::{Kind, NoProvider, Plugin, config::similar};

/// What a stage is.
pub(super) fn stage(kind: Kind) -> &'static str {
    match kind {
        Kind::Turn => "turn detection",
        Kind::Stt => "speech to text",
        Kind::Llm => "language model",
        Kind::Tts => "text to speech",
        Kind::Vision => "vision",
    }
}

/// Why a stage has no plugin, and which ones there are, if the user named another.
pub(super) fn explain(missing: &NoProvider, plugins: &[Plugin]) -> String {
    let NoProvider { kind, wanted, reasons } = missing;
    let mut text = match wanted {
        Some(name) => format!("no plugin named {name} for {} ({kind})", stage(*kind)),
        None => format!("no plugin for {} ({kind})", stage(*kind)),
    };
    for (plugin, reason) in reasons {
        text = format!("{text}\n  {plugin}: {reason}");
    }
    let able =
        plugins.iter().filter(|plugin| plugin.manifest.as_ref().is_some_and(|can| can.has(kind.as_str())));
    let able: Vec<&str> = able.map(|plugin| plugin.name.as_str()).collect();
    if let (Some(name), [], [_, ..]) = (wanted, &reasons[..], &able[..]) {
        let hint = similar(name, &able).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
        text = format!("{text}, there are {}{hint}", able.join(", "));
    }
    text
}

//! `#[derive(Event)]` and `#[derive(EventUnion)]` of `antiphon-core`.
//!
//! Not here: what an event *is*; that is `antiphon_core::event`. These macros only write the impls.
#![forbid(unsafe_code)]

mod event;
mod union;

use proc_macro::TokenStream;
use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::Span;
use syn::{DeriveInput, Ident, Path, parse_macro_input};

/// Makes a serde struct an event type.
///
/// ```ignore
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Event)]
/// #[event(type = "stt.transcript.final", base = PluginBaseEvent)]
/// pub struct SttFinalTranscriptEvent {
///     pub text: String,
/// }
/// ```
///
/// - `type`: the dotted wire name; the name of a third-party event starts with its plugin's name.
/// - `base`: `BaseEvent`, `PluginBaseEvent`, or another event. The base of the last kind is a field marked
///   `#[event(base)]` and `#[serde(flatten)]`.
/// - `media`: optional flag for high-rate events that carry audio or pictures; only subscribers that name the
///   type receive them, not those of a base type.
/// - `overflow = DropOldest`: optional, what a subscription's full queue does by default (a variant of `Overflow`).
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::expand(&input, &core_path()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an enum of `Event<T>` handles something that one handler can subscribe to.
///
/// ```ignore
/// #[derive(EventUnion)]
/// enum Spoken {
///     User(Event<UserTranscriptEvent>),
///     Agent(Event<AgentTranscriptEvent>),
/// }
/// ```
#[proc_macro_derive(EventUnion)]
pub fn derive_event_union(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    union::expand(&input, &core_path()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Where the expanding crate sees `antiphon_core`: directly, or through the crate that re-exports it.
fn core_path() -> Path {
    match crate_name("antiphon-core") {
        Ok(FoundCrate::Name(name)) => {
            let name = Ident::new(&name, Span::call_site());
            return syn::parse_quote!(::#name);
        }
        Ok(FoundCrate::Itself) => return syn::parse_quote!(::antiphon_core),
        Err(_) => {}
    }
    for (package, module) in
        [("antiphon-plugin-api", "antiphon_plugin_api"), ("antiphon-host", "antiphon_host")]
    {
        let name = match crate_name(package) {
            Ok(FoundCrate::Itself) => Ident::new(module, Span::call_site()),
            Ok(FoundCrate::Name(name)) => Ident::new(&name, Span::call_site()),
            Err(_) => continue,
        };
        return syn::parse_quote!(::#name::core);
    }
    syn::parse_quote!(::antiphon_core)
}

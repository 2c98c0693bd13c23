//! The expansion of `#[derive(Event)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Member, Path, Result, ext::IdentExt,
    spanned::Spanned,
};

/// What `BaseEvent` and `PluginBaseEvent` have on the wire; a payload's field of that name would be overwritten. The same
/// as `antiphon_core::event::STAMPED_FIELDS`.
const STAMPED: [&str; 13] = [
    "type",
    "event_id",
    "timestamp",
    "session_id",
    "seq",
    "turn_id",
    "causation_id",
    "participant",
    "user_metadata",
    "mono_ns",
    "plugin_name",
    "plugin_version",
    "plugin_instance",
];

struct Options {
    name: LitStr,
    base: Path,
    media: bool,
    overflow: Option<Ident>,
}

pub(crate) fn expand(input: &DeriveInput, core: &Path) -> Result<TokenStream> {
    let options = options(input)?;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "an event is a struct: for several kinds, derive one event for each, or give the struct an enum field",
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new(
            input.generics.span(),
            "an event has one schema, so its struct cannot be generic",
        ));
    }
    check_fields(&data.fields)?;
    let base_field = base_field(&data.fields)?;
    let Options { name, base, media, overflow } = &options;
    let ident = &input.ident;
    let roots = ["BaseEvent", "PluginBaseEvent"];
    let is_root = base.segments.last().is_some_and(|segment| roots.iter().any(|root| segment.ident == root));
    let base_payload = match (&base_field, is_root) {
        (Some((member, field)), false) => {
            if !is_flat(field) {
                return Err(Error::new(
                    field.ty.span(),
                    "an event is one flat object on the wire: add `#[serde(flatten)]` to its base",
                ));
            }
            quote_spanned! { field.ty.span()=> {
                let base: &#base = &self.#member;
                ::core::option::Option::Some(base)
            } }
        }
        (None, true) => quote! { ::core::option::Option::None },
        (Some((_, field)), true) => {
            return Err(Error::new(
                field.ty.span(),
                "the fields of BaseEvent and PluginBaseEvent are stamped by the host: remove this one",
            ));
        }
        (None, false) => {
            let base = &base.segments.last().expect("a path is not empty").ident;
            return Err(Error::new(
                base.span(),
                format!(
                    "an event that extends another holds it: add `#[event(base)] #[serde(flatten)] pub base: {base}`"
                ),
            ));
        }
    };
    let overflow = match overflow {
        Some(variant) => quote! { #core::event::Overflow::#variant },
        None if *media => quote! { #core::event::Overflow::DropOldest },
        None => quote! { #core::event::Overflow::Wait },
    };
    let rust_name = ident.to_string();
    Ok(quote! {
        #[diagnostic::do_not_recommend]
        impl #core::event::EventView for #ident {
            const NAME: &'static str = #name;
            const MEDIA: bool = #media;
            fn view(envelope: &#core::event::Envelope) -> ::core::option::Option<&Self> {
                envelope.payload_as::<Self>()
            }
            fn info() -> ::core::option::Option<&'static #core::event::EventInfo> {
                ::core::option::Option::Some(<Self as #core::event::EventPayload>::INFO)
            }
            fn extend_lineage(lineage: &mut ::std::vec::Vec<&'static str>) {
                lineage.push(#name);
                <#base as #core::event::EventView>::extend_lineage(lineage);
            }
        }
        #[diagnostic::do_not_recommend]
        impl #core::event::EventPayload for #ident {
            const INFO: &'static #core::event::EventInfo =
                &#core::event::EventInfo::of::<Self, #base>(#rust_name, #overflow);
            fn event_type() -> &'static #core::event::EventType {
                static TYPE: ::std::sync::OnceLock<#core::event::EventType> = ::std::sync::OnceLock::new();
                TYPE.get_or_init(|| #core::event::EventType::typed(<Self as #core::event::EventPayload>::INFO))
            }
            fn base_payload(&self) -> ::core::option::Option<&dyn #core::event::Payload> {
                #base_payload
            }
        }
    })
}

fn options(input: &DeriveInput) -> Result<Options> {
    let (mut name, mut base, mut media, mut overflow) = (None::<LitStr>, None, false, None);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("type") {
                name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("base") {
                base = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("overflow") {
                overflow = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("media") {
                media = true;
            } else {
                return Err(meta.error("expected `type`, `base`, `media` or `overflow`"));
            }
            Ok(())
        })?;
    }
    let span = input.ident.span();
    let name = name.ok_or_else(|| {
        Error::new(span, "an event needs its wire name and base: `#[event(type = \"plugin.thing\", base = PluginBaseEvent)]`")
    })?;
    let base = base.ok_or_else(|| {
        Error::new(
            span,
            "an event needs a base: `base = BaseEvent`, `base = PluginBaseEvent`, or the event it extends",
        )
    })?;
    check_name(&name)?;
    Ok(Options { name, base, media, overflow })
}

/// Wire names are dotted lower-case words, so that `"tts.*"` can name a family.
fn check_name(name: &LitStr) -> Result<()> {
    let text = name.value();
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if text.contains('.') && text.split('.').all(word) {
        return Ok(());
    }
    Err(Error::new(name.span(), "an event type is dotted lower-case words, such as \"stt.transcript.final\""))
}

fn check_fields(fields: &Fields) -> Result<()> {
    let stamped = |name: &&Ident| STAMPED.iter().any(|stamped| name.unraw() == stamped);
    match fields.iter().filter_map(|field| field.ident.as_ref()).find(stamped) {
        Some(name) => Err(Error::new(
            name.span(),
            format!(
                "`{name}` is a field of the base, which is stamped by the host: emit it with a `Stamp`, or rename this"
            ),
        )),
        None => Ok(()),
    }
}

fn is_flat(field: &Field) -> bool {
    let serde = field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde"));
    let mut lists = serde.filter_map(|attribute| attribute.meta.require_list().ok());
    lists.any(|list| list.tokens.clone().into_iter().any(|token| token.to_string() == "flatten"))
}

fn base_field(fields: &Fields) -> Result<Option<(Member, &Field)>> {
    let mut found = None;
    for (member, field) in fields.members().zip(fields) {
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| match meta.path.is_ident("base") {
                true => Ok(()),
                false => Err(meta.error("expected `base`")),
            })?;
            if found.replace((member.clone(), field)).is_some() {
                return Err(Error::new(field.span(), "an event has one base"));
            }
        }
    }
    Ok(found)
}

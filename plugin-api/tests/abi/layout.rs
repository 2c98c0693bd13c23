//! Published traits never change: what the types of the ABI look like in memory is in `abi_layout.txt`, for good.

use std::{env, fmt::Write, fs, path::PathBuf};

use antiphon_plugin_api::abi::{
    AbiError, AudioV1, CapabilityObject, EventHeaderV1, HostBox, InterestV1, LlmBox, LlmSessionBox,
    PluginBox, PluginRootRef, SinkBox, SttBox, SttSessionBox, TtsBox, TtsSessionBox, TurnBox, TurnSessionBox,
    VideoV1, VisionBox, VisionSessionBox, WakerBox,
    abi_stable::{
        StableAbi,
        std_types::utypeid::UTypeId,
        type_layout::{TLData, TLFields, TypeLayout},
    },
};

/// What is frozen. A new version is a new line here, and a new part of the file.
const PUBLISHED: &[(&str, &TypeLayout)] = &[
    ("PluginRootRef", PluginRootRef::LAYOUT),
    ("HostBox", HostBox::LAYOUT),
    ("PluginBox", PluginBox::LAYOUT),
    ("SinkBox", SinkBox::LAYOUT),
    ("WakerBox", WakerBox::LAYOUT),
    ("TurnBox", TurnBox::LAYOUT),
    ("TurnSessionBox", TurnSessionBox::LAYOUT),
    ("SttBox", SttBox::LAYOUT),
    ("SttSessionBox", SttSessionBox::LAYOUT),
    ("LlmBox", LlmBox::LAYOUT),
    ("LlmSessionBox", LlmSessionBox::LAYOUT),
    ("TtsBox", TtsBox::LAYOUT),
    ("TtsSessionBox", TtsSessionBox::LAYOUT),
    ("VisionBox", VisionBox::LAYOUT),
    ("VisionSessionBox", VisionSessionBox::LAYOUT),
    ("CapabilityObject", CapabilityObject::LAYOUT),
    ("AudioV1", AudioV1::LAYOUT),
    ("VideoV1", VideoV1::LAYOUT),
    ("EventHeaderV1", EventHeaderV1::LAYOUT),
    ("InterestV1", InterestV1::LAYOUT),
    ("AbiError", AbiError::LAYOUT),
];

const ADVICE: &str = "\
The layout of a published type of the ABI has changed: plugins that exist would be refused, or crash the host.
Published traits never change, not even by a method at their end: make a new trait (SinkV2 beside SinkV1), give it out
under a new version number, and keep the old one working. Then, and when a type was added, and only then:
UPDATE_ABI_LAYOUT=1 cargo test --package antiphon-plugin-api --test abi layout";

/// Describes each type once, in the order in which it is come upon.
#[derive(Default)]
struct Description {
    text: String,
    /// Types that have a name, and how many of them are described: names do not tell all types apart.
    names: Vec<(UTypeId, String)>,
    described: Vec<UTypeId>,
}

impl Description {
    fn add(&mut self, layout: Layout) {
        if self.described.contains(&layout.get_utypeid()) {
            return;
        }
        self.described.push(layout.get_utypeid());
        let mut body = Body::default();
        let what = match layout.data() {
            TLData::Primitive(_) | TLData::Opaque => "whole",
            TLData::Struct { fields } => {
                self.fields(fields, &mut body);
                "struct"
            }
            TLData::Union { fields } => {
                self.fields(fields, &mut body);
                "union"
            }
            TLData::Enum(variants) => {
                let counts = &variants.field_count[..];
                body.lines.push(format!("variants {} of {counts:?} fields", variants.variant_names));
                body.lines.push(format!("numbered {:?}", variants.discriminants));
                self.fields(variants.fields, &mut body);
                "enum"
            }
            TLData::PrefixType(prefix) => {
                body.lines.push(format!("fields of the first version: {}", prefix.first_suffix_field));
                self.fields(prefix.fields, &mut body);
                "prefix struct"
            }
        };
        self.fields(layout.phantom_fields(), &mut body);
        // What only stands between angle brackets: a pointer does not say otherwise what it points to.
        body.below.extend(layout.generics().type_params().iter().map(|layout| layout()));
        let (name, size, alignment) = (self.name(layout), layout.size(), layout.alignment());
        let package = package(layout);
        let nonzero = if layout.is_nonzero() { ", never zero" } else { "" };
        let _ =
            writeln!(self.text, "{name}: {what} of {size} bytes, aligned to {alignment}{nonzero}{package}");
        for line in body.lines {
            let _ = writeln!(self.text, "    {line}");
        }
        body.below.into_iter().for_each(|layout| self.add(layout));
    }

    fn fields(&mut self, fields: TLFields, body: &mut Body) {
        for field in fields {
            body.lines.push(format!("{}: {}", field.name(), self.name(field.layout())));
            if !field.is_function() {
                body.below.push(field.layout());
            }
            for function in field.function_range() {
                let parameters: Vec<Layout> =
                    function.param_type_layouts.iter().map(|layout| layout()).collect();
                let result = function.return_type_layout().map(|layout| layout());
                let list: Vec<String> = parameters.iter().map(|layout| self.name(layout)).collect();
                let result_name = result.map_or_else(|| "()".to_owned(), |layout| self.name(layout));
                let safety = if function.fn_qualifs.is_unsafe() { "unsafe " } else { "" };
                body.lines.push(format!("    {safety}fn({}) -> {result_name}", list.join(", ")));
                body.below.extend(parameters.into_iter().chain(result));
            }
        }
    }

    /// What a type is called here: as in the code, with a number where several are called the same.
    fn name(&mut self, layout: Layout) -> String {
        let id = layout.get_utypeid();
        if let Some((_, name)) = self.names.iter().find(|(known, _)| *known == id) {
            return name.clone();
        }
        let full = layout.full_type().to_string();
        let module = layout.mod_path().to_string();
        // The macros call every vtable `VTable`, and its module by the trait.
        let module = module.rsplit("::").next().filter(|module| module.ends_with("_trait"));
        let full =
            module.map_or_else(|| full.trim().to_owned(), |module| format!("{module}::{}", full.trim()));
        let is_taken = |name: &str| self.names.iter().any(|(_, known)| known == name);
        let numbered = (2..).map(|number| format!("{full} #{number}"));
        let name = std::iter::once(full.to_owned()).chain(numbered).find(|name| !is_taken(name));
        let name = name.expect("there are more numbers than types");
        self.names.push((id, name.clone()));
        name
    }
}

type Layout = &'static TypeLayout;

/// The package of a type of ours, with as much of its version as abi_stable compares: types of an incompatible version of
/// their package are other types to it, whatever they look like.
fn package(layout: Layout) -> String {
    let (package, version) = layout.package_and_version();
    if !package.starts_with("antiphon") {
        return String::new();
    }
    let version = version.version.as_str();
    let mut numbers = version.split('.');
    let kept = match (numbers.next(), numbers.next()) {
        (Some("0"), Some(minor)) => format!("0.{minor}"),
        (Some(major), _) => major.to_owned(),
        _ => version.to_owned(),
    };
    format!(", of {package} {kept}")
}

/// What a type consists of, and the types that this brings up.
#[derive(Default)]
struct Body {
    lines: Vec<String>,
    below: Vec<Layout>,
}

fn description() -> String {
    let mut description = Description::default();
    for (published, layout) in PUBLISHED {
        let name = description.name(layout);
        let _ = writeln!(description.text, "== {published} is {name}");
        description.add(layout);
        description.text.push('\n');
    }
    description.text
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/abi_layout.txt")
}

#[test]
fn published_types_have_the_layout_that_they_were_published_with() {
    let now = description();
    if env::var_os("UPDATE_ABI_LAYOUT").is_some() {
        fs::write(golden(), &now).expect("room for a file");
    }
    let published = fs::read_to_string(golden()).expect("the file is in the repository");
    let difference = published.lines().zip(now.lines()).enumerate().find(|(_, (old, new))| old != new);
    let difference = difference.map_or_else(
        || format!("it had {} lines and has {}", published.lines().count(), now.lines().count()),
        |(line, (old, new))| format!("abi_layout.txt:{}\n  was {old}\n  is  {new}", line + 1),
    );
    assert!(published == now, "{ADVICE}\n\n{difference}");
}

//! The expansion of `#[derive(EventUnion)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Error, Fields, Path, Result, spanned::Spanned};

pub(crate) fn expand(input: &DeriveInput, core: &Path) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "`derive(EventUnion)` is for enums whose variants hold an `Event<..>` each",
        ));
    };
    let mut filters = Vec::new();
    let mut attempts = Vec::new();
    for variant in &data.variants {
        let Fields::Unnamed(fields) = &variant.fields else {
            return Err(stray(variant));
        };
        let (1, Some(field)) = (fields.unnamed.len(), fields.unnamed.first()) else {
            return Err(stray(variant));
        };
        let (ty, ident) = (&field.ty, &variant.ident);
        filters.push(quote_spanned! { ty.span()=> <#ty as #core::event::FromEvent>::extend_filter(filter); });
        attempts.push(quote_spanned! { ty.span()=>
            let envelope = match <#ty as #core::event::FromEvent>::from_envelope(envelope) {
                ::core::result::Result::Ok(event) => return ::core::result::Result::Ok(Self::#ident(event)),
                ::core::result::Result::Err(envelope) => envelope,
            };
        });
    }
    if attempts.is_empty() {
        return Err(Error::new(
            input.ident.span(),
            "a union of no event types receives nothing: add a variant",
        ));
    }
    let (ident, (impl_generics, ty_generics, where_clause)) = (&input.ident, input.generics.split_for_impl());
    Ok(quote! {
        #[diagnostic::do_not_recommend]
        impl #impl_generics #core::event::FromEvent for #ident #ty_generics #where_clause {
            fn extend_filter(filter: &mut #core::event::Filter) {
                #(#filters)*
            }
            fn from_envelope(
                envelope: ::std::sync::Arc<#core::event::Envelope>,
            ) -> ::core::result::Result<Self, ::std::sync::Arc<#core::event::Envelope>> {
                #(#attempts)*
                ::core::result::Result::Err(envelope)
            }
        }
    })
}

fn stray(variant: &syn::Variant) -> Error {
    Error::new(
        variant.span(),
        "each variant of an event union holds one event: `Final(Event<SttFinalTranscriptEvent>)`",
    )
}

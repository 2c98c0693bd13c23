//! A capability's object on its way across: its type erased, with the layout by which the host recognises it.

use abi_stable::{
    StableAbi, abi_stability::check_layout_compatibility, pointer_trait::TransmuteElement, std_types::RBox,
    type_layout::TypeLayout,
};

use super::{LlmBox, SttBox, TtsBox, TurnBox, VisionBox};

/// A capability's object with its type erased, and the layout by which the host recognises it.
///
/// The root's own layout must not mention the capability traits, or no host could ever learn a new one.
#[repr(C)]
#[derive(StableAbi)]
pub struct CapabilityObject {
    object: RBox<()>,
    layout: extern "C" fn() -> *const (),
}

// SAFETY: only capability objects are put in (`CapabilityObject::new`), and all of them are `Send + Sync`.
unsafe impl Send for CapabilityObject {}
// SAFETY: as above.
unsafe impl Sync for CapabilityObject {}

/// Why a capability object was not accepted.
#[derive(Debug, thiserror::Error)]
#[error(
    "its {capability} object has another layout than the host's: it was built with an incompatible antiphon-plugin-api"
)]
pub struct LayoutMismatch {
    capability: &'static str,
}

/// The object types that a [`CapabilityObject`] can hold.
///
/// # Safety
///
/// Implemented in this file alone, for the `_TO` types of the capability traits.
pub unsafe trait Capability: StableAbi + Send + Sync + Sized + 'static {
    const NAME: &'static str;
}

// SAFETY: the `_TO` type of a capability trait.
unsafe impl Capability for TurnBox {
    const NAME: &'static str = "turn";
}
// SAFETY: the `_TO` type of a capability trait.
unsafe impl Capability for SttBox {
    const NAME: &'static str = "stt";
}
// SAFETY: the `_TO` type of a capability trait.
unsafe impl Capability for LlmBox {
    const NAME: &'static str = "llm";
}
// SAFETY: the `_TO` type of a capability trait.
unsafe impl Capability for TtsBox {
    const NAME: &'static str = "tts";
}
// SAFETY: the `_TO` type of a capability trait.
unsafe impl Capability for VisionBox {
    const NAME: &'static str = "vision";
}

impl CapabilityObject {
    pub fn new<C: Capability>(object: C) -> Self {
        extern "C" fn layout<C: Capability>() -> *const () {
            std::ptr::from_ref::<TypeLayout>(C::LAYOUT).cast()
        }
        // SAFETY: an `RBox` of any sized type is a pointer and a vtable that knows how to drop it; `into_object`
        // restores the type after it has compared the layouts.
        let object = unsafe { RBox::new(object).transmute_element::<()>() };
        Self { object, layout: layout::<C> }
    }

    /// The object, if it is what the host calls `C`.
    ///
    /// # Errors
    ///
    /// [`LayoutMismatch`] when the plugin's idea of the trait is another one.
    pub fn into_object<C: Capability>(self) -> Result<C, LayoutMismatch> {
        // SAFETY: `layout` returns a `&'static TypeLayout` of abi_stable, whose version the entry header has checked.
        let layout = unsafe { &*(self.layout)().cast::<TypeLayout>() };
        check_layout_compatibility(C::LAYOUT, layout)
            .into_result()
            .map_err(|_| LayoutMismatch { capability: C::NAME })?;
        // SAFETY: the layouts agree, so `new` was called with what is `C` here.
        Ok(RBox::into_inner(unsafe { self.object.transmute_element::<C>() }))
    }
}

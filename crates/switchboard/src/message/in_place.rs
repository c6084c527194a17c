//! Messages that can be built, and looked at, where they lie.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Bytes, EncodingError, Message, Named, Plain, plain};

/// A message whose memory is what is sent: plain types, [`Plain`] and [`Bytes`].
///
/// It is what [`Sender::loan`](crate::Sender::loan) and [`Receiver::borrow`](crate::Receiver::borrow) take. It
/// cannot be implemented elsewhere; a plain type has it by zerocopy's derives.
pub trait InPlace: Message + sealed::Sealed {
    /// What is seen of it: the plain type, or a slice of bytes.
    type View: ?Sized;

    /// The message that these bytes are; `None` where length or alignment do not fit.
    #[doc(hidden)]
    fn view(bytes: &[u8]) -> Option<&Self::View>;

    /// As [`view`](Self::view), to be changed.
    #[doc(hidden)]
    fn view_mut(bytes: &mut [u8]) -> Option<&mut Self::View>;

    /// A copy of the message.
    #[doc(hidden)]
    fn copied(bytes: &[u8]) -> Result<Box<Self::View>, EncodingError>;

    /// Room for a message of this length, all zeros.
    #[doc(hidden)]
    fn blank(len_bytes: usize) -> Box<Self::View>;

    /// The bytes that are sent.
    #[doc(hidden)]
    fn bytes(view: &Self::View) -> &[u8];
}

mod sealed {
    pub trait Sealed {}
}

impl<T> sealed::Sealed for T where T: FromBytes + IntoBytes + Immutable + KnownLayout {}

impl<T> InPlace for T
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    type View = T;

    #[inline]
    fn view(bytes: &[u8]) -> Option<&T> {
        T::ref_from_bytes(bytes).ok()
    }

    #[inline]
    fn view_mut(bytes: &mut [u8]) -> Option<&mut T> {
        T::mut_from_bytes(bytes).ok()
    }

    fn copied(bytes: &[u8]) -> Result<Box<T>, EncodingError> {
        plain(bytes, std::any::type_name::<T>()).map(Box::new)
    }

    fn blank(_: usize) -> Box<T> {
        Box::new(T::new_zeroed())
    }

    #[inline]
    fn bytes(view: &T) -> &[u8] {
        view.as_bytes()
    }
}

impl<T> sealed::Sealed for Plain<T> {}

impl<T> InPlace for Plain<T>
where
    T: Named + FromBytes + IntoBytes + Immutable + KnownLayout,
{
    type View = T;

    #[inline]
    fn view(bytes: &[u8]) -> Option<&T> {
        <T as InPlace>::view(bytes)
    }

    #[inline]
    fn view_mut(bytes: &mut [u8]) -> Option<&mut T> {
        <T as InPlace>::view_mut(bytes)
    }

    fn copied(bytes: &[u8]) -> Result<Box<T>, EncodingError> {
        plain(bytes, T::NAME).map(Box::new)
    }

    fn blank(len_bytes: usize) -> Box<T> {
        <T as InPlace>::blank(len_bytes)
    }

    #[inline]
    fn bytes(view: &T) -> &[u8] {
        view.as_bytes()
    }
}

impl sealed::Sealed for Bytes {}

impl InPlace for Bytes {
    type View = [u8];

    #[inline]
    fn view(bytes: &[u8]) -> Option<&[u8]> {
        Some(bytes)
    }

    #[inline]
    fn view_mut(bytes: &mut [u8]) -> Option<&mut [u8]> {
        Some(bytes)
    }

    fn copied(bytes: &[u8]) -> Result<Box<[u8]>, EncodingError> {
        Ok(bytes.into())
    }

    fn blank(len_bytes: usize) -> Box<[u8]> {
        vec![0; len_bytes].into()
    }

    #[inline]
    fn bytes(view: &[u8]) -> &[u8] {
        view
    }
}

//! Enums whose variants are listed and named, in one table, so that no list of them can miss one.

/// Makes an enum with `ALL`, and with a name and a text for each variant.
macro_rules! listed {
    ($(#[$about:meta])* pub enum $Enum:ident; $($Variant:ident = $name:literal, $text:literal;)+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $Enum {
            $(#[doc = $text] $Variant,)+
        }

        impl $Enum {
            /// All of them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$Variant),+];

            /// Its name on the command line and in documents.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Variant => $name,)+ }
            }

            /// Its text.
            pub fn text(self) -> &'static str {
                match self { $(Self::$Variant => $text,)+ }
            }

            /// The one with this name.
            ///
            /// # Errors
            /// There is none; the error lists those that there are.
            pub fn find(name: &str) -> Result<Self, String> {
                let known = || Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
                let found = Self::ALL.into_iter().find(|one| one.name() == name);
                found.ok_or_else(|| format!("there is no '{name}', but {}", known()))
            }
        }
    };
}

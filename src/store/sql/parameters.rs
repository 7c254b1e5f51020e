//! Parameters of statements: a struct with a field each, which binds them in its order.

use sqlx::postgres::{PgArguments, PgTypeInfo};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Encode, Postgres, Type};
use uuid::Uuid;

use crate::domain::clock::Timestamp;

/// The parameters of a statement.
pub(in crate::store) trait Parameters {
    /// The same with what is borrowed for so long.
    type Of<'a>: Bind<'a>;
    /// In their order.
    const NAMES: &'static [&'static str];

    /// Their types, in the same order.
    fn types() -> Vec<PgTypeInfo>;
}

/// Values for the parameters of a statement.
pub(in crate::store) trait Bind<'q> {
    /// Adds them to a query.
    fn bind<Q: Binding<'q>>(self, query: Q) -> Q;
}

/// A query of whatever kind, that takes one value after the other.
pub(in crate::store) trait Binding<'q> {
    /// The next one.
    fn with<T: 'q + Encode<'q, Postgres> + Type<Postgres>>(self, value: T) -> Self;
}

impl<'q> Binding<'q> for Query<'q, Postgres, PgArguments> {
    fn with<T: 'q + Encode<'q, Postgres> + Type<Postgres>>(self, value: T) -> Self {
        self.bind(value)
    }
}

impl<'q, R> Binding<'q> for QueryAs<'q, Postgres, R, PgArguments> {
    fn with<T: 'q + Encode<'q, Postgres> + Type<Postgres>>(self, value: T) -> Self {
        self.bind(value)
    }
}

impl<'q, T> Binding<'q> for QueryScalar<'q, Postgres, T, PgArguments> {
    fn with<V: 'q + Encode<'q, Postgres> + Type<Postgres>>(self, value: V) -> Self {
        self.bind(value)
    }
}

impl Parameters for () {
    type Of<'a> = ();
    const NAMES: &'static [&'static str] = &[];

    fn types() -> Vec<PgTypeInfo> {
        Vec::new()
    }
}

impl<'q> Bind<'q> for () {
    fn bind<Q: Binding<'q>>(self, query: Q) -> Q {
        query
    }
}

/// A single parameter, `$1`.
macro_rules! single {
    ($($type:ty => $of:ty),+ $(,)?) => {$(
        impl Parameters for ($type,) {
            type Of<'a> = ($of,);
            const NAMES: &'static [&'static str] = &["1"];

            fn types() -> Vec<PgTypeInfo> {
                vec![<$type as Type<Postgres>>::type_info()]
            }
        }
    )+};
}

single!(
    bool => bool,
    i64 => i64,
    Uuid => Uuid,
    Timestamp => Timestamp,
    &'static str => &'a str,
    &'static [i64] => &'a [i64],
    &'static [String] => &'a [String],
    &'static [&'static str] => &'a [&'a str],
);

impl<'q, T: 'q + Encode<'q, Postgres> + Type<Postgres>> Bind<'q> for (T,) {
    fn bind<Q: Binding<'q>>(self, query: Q) -> Q {
        query.with(self.0)
    }
}

/// Defines the struct that binds the parameters of a statement.
macro_rules! parameters {
    ($(#[$attribute:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$attribute])*
        struct $name { $($(#[$of_field])* $field: $type),+ }

        $crate::store::sql::parameters!(@implement $name, [], [$name], $($field: $type),+);
    };
    ($(#[$attribute:meta])* struct $name:ident<$life:lifetime> { $($(#[$of_field:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$attribute])*
        struct $name<$life> { $($(#[$of_field])* $field: $type),+ }

        $crate::store::sql::parameters!(@implement $name<$life>, [$life], [$name<'of>], $($field: $type),+);
    };
    (@implement $self:ty, [$($life:lifetime)?], [$of:ty], $($field:ident: $type:ty),+) => {
        impl<$($life)?> $crate::store::sql::Parameters for $self {
            type Of<'of> = $of;
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn types() -> Vec<sqlx::postgres::PgTypeInfo> {
                vec![$(<$type as sqlx::Type<sqlx::Postgres>>::type_info()),+]
            }
        }

        $crate::store::sql::parameters!(@bind $self, [$($life)?], $($field),+);
    };
    (@bind $self:ty, [], $($field:ident),+) => {
        impl<'q> $crate::store::sql::Bind<'q> for $self {
            fn bind<Q: $crate::store::sql::Binding<'q>>(self, query: Q) -> Q {
                query$(.with(self.$field))+
            }
        }
    };
    (@bind $self:ty, [$life:lifetime], $($field:ident),+) => {
        impl<$life> $crate::store::sql::Bind<$life> for $self {
            fn bind<Q: $crate::store::sql::Binding<$life>>(self, query: Q) -> Q {
                query$(.with(self.$field))+
            }
        }
    };
}
pub(in crate::store) use parameters;

/// The text with `$1` for the first name, and so on; a name that is not there stays, and Postgres will refuse it.
pub(super) fn numbered(named: &str, names: &[&str]) -> String {
    let mut parts = named.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        text.push('$');
        match names.iter().position(|known| *known == name) {
            Some(index) => text.push_str(&(index + 1).to_string()),
            None => text.push_str(name),
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        let text = numbered("SELECT $b::bigint[], x[$a:$b], $a_b, $1 FROM t", &["a", "b", "a_b"]);
        assert_eq!(text, "SELECT $2::bigint[], x[$1:$2], $3, $1 FROM t");
        assert_eq!(numbered("SELECT $c", &["a"]), "SELECT $c");
        assert_eq!(numbered("$a", &["a"]), "$1");
    }
}

//! Rows that statements return: which columns are read, and as what.

use sqlx::postgres::PgTypeInfo;
use sqlx::{Postgres, Type};

/// A column that is read.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name; without one it is read by its position.
    pub name: Option<&'static str>,
    /// The Rust type that is made of it.
    pub read_as: &'static str,
    /// Whether that can be made of this type.
    pub fits: fn(&PgTypeInfo) -> bool,
}

impl Column {
    fn of<T: Type<Postgres>>(name: Option<&'static str>) -> Self {
        Self { name, read_as: std::any::type_name::<T>(), fits: T::compatible }
    }
}

/// A row that knows which columns it reads.
pub trait Columns {
    /// All of them.
    fn columns() -> Vec<Column>;
}

impl Columns for () {
    fn columns() -> Vec<Column> {
        Vec::new()
    }
}

impl<T: Type<Postgres>> Columns for (T,) {
    fn columns() -> Vec<Column> {
        vec![Column::of::<T>(None)]
    }
}

/// The column of a field.
pub(in crate::store) fn column<R, T: Type<Postgres>>(name: &'static str, _field: fn(&R) -> &T) -> Column {
    Column::of::<T>(Some(name))
}

/// The columns of a field that is a row itself.
pub(in crate::store) fn columns_of<R, T: Columns>(_field: fn(&R) -> &T) -> Vec<Column> {
    T::columns()
}

/// Reads a row into a struct whose fields are named as its columns; a field behind `;` is a struct that reads the same row.
///
/// The derive macro of sqlx does this too, but has all of sqlx, tokio and rustls compiled once more, for the compiler to run.
macro_rules! from_row {
    ($row:ident { $($field:ident),+ $(; $nested:ident)? }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $row {
            fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                Ok(Self {
                    $($field: sqlx::Row::try_get(row, stringify!($field))?,)+
                    $($nested: sqlx::FromRow::from_row(row)?,)?
                })
            }
        }

        impl $crate::store::sql::Columns for $row {
            fn columns() -> Vec<$crate::store::sql::Column> {
                [
                    vec![$($crate::store::sql::column(stringify!($field), |row: &Self| &row.$field)),+],
                    $($crate::store::sql::columns_of(|row: &Self| &row.$nested),)?
                ]
                .concat()
            }
        }
    };
}
pub(in crate::store) use from_row;

/// Has a row read into a type that is made of another one.
macro_rules! read_as {
    ($row:ty => $type:ty) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $type {
            fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                <$row as sqlx::FromRow<'_, sqlx::postgres::PgRow>>::from_row(row).map(Self::from)
            }
        }

        impl $crate::store::sql::Columns for $type {
            fn columns() -> Vec<$crate::store::sql::Column> {
                <$row as $crate::store::sql::Columns>::columns()
            }
        }
    };
}
pub(in crate::store) use read_as;

/// Defines a struct that is read from a row.
macro_rules! row {
    ($(#[$attribute:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$attribute])*
        struct $name { $($(#[$of_field])* $field: $type),+ }

        $crate::store::sql::from_row!($name { $($field),+ });
    };
}
pub(in crate::store) use row;

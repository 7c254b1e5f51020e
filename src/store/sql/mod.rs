//! SQL statements as values: a text, the struct that binds its parameters, the row that it returns.
//!
//! A text names its parameters by the fields of the struct, `$stream_id`, so that nobody has to count; Postgres is told numbers. A statement
//! with a single parameter may call it `$1`. Every statement is in the list that its module gives with [`statements!`], and a test prepares
//! them all against the schema. What cannot be prepared goes through [`utility`].

mod columns;
mod parameters;

use std::marker::PhantomData;
use std::sync::OnceLock;

use sqlx::postgres::{PgArguments, PgRow, PgTypeInfo};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{AssertSqlSafe, Decode, FromRow, Postgres, Type};

pub use self::columns::{Column, Columns};
pub(in crate::store) use self::columns::{column, columns_of, from_row, read_as, row};
use self::parameters::numbered;
pub(in crate::store) use self::parameters::{Bind, Binding, Parameters, parameters};

/// A statement that takes `P` and returns rows of `R`.
pub(in crate::store) struct Sql<P, R> {
    named: &'static str,
    numbered: OnceLock<String>,
    types: PhantomData<fn(P) -> R>,
}

impl<P: Parameters, R> Sql<P, R> {
    /// Of a text with named parameters.
    pub(in crate::store) const fn new(named: &'static str) -> Self {
        Self { named, numbered: OnceLock::new(), types: PhantomData }
    }

    /// The text as Postgres gets it. It is made once: drivers know prepared statements by their text.
    pub(in crate::store) fn text(&'static self) -> &'static str {
        self.numbered.get_or_init(|| numbered(self.named, P::NAMES))
    }

    /// To execute, or to learn whether there is a row.
    pub(in crate::store) fn run<'q>(&'static self, parameters: P::Of<'q>) -> Query<'q, Postgres, PgArguments> {
        parameters.bind(sqlx::query(self.text()))
    }

    /// To read rows.
    pub(in crate::store) fn rows<'q>(&'static self, parameters: P::Of<'q>) -> QueryAs<'q, Postgres, R, PgArguments>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        self.rows_with(PgArguments::default(), parameters)
    }

    /// The same, binding into arguments that may have room for them already.
    pub(in crate::store) fn rows_with<'q>(
        &'static self,
        arguments: PgArguments,
        parameters: P::Of<'q>,
    ) -> QueryAs<'q, Postgres, R, PgArguments>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        parameters.bind(sqlx::query_as_with(self.text(), arguments))
    }
}

impl<P: Parameters, T> Sql<P, (T,)>
where
    T: Type<Postgres> + for<'r> Decode<'r, Postgres>,
    (T,): for<'r> FromRow<'r, PgRow>,
{
    /// To read rows of one column.
    pub(in crate::store) fn scalar<'q>(
        &'static self,
        parameters: P::Of<'q>,
    ) -> QueryScalar<'q, Postgres, T, PgArguments> {
        parameters.bind(sqlx::query_scalar(self.text()))
    }
}

/// A statement that Postgres cannot prepare, or that has names of tables in it: neither checked by the test nor kept by the driver.
pub(in crate::store) fn utility(text: String) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(text)).persistent(false)
}

/// What the code knows of a statement, to be compared with what Postgres says.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The path of its module.
    pub module: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// As Postgres gets it.
    pub text: &'static str,
    /// What is bound, by name.
    pub parameters: Vec<(&'static str, PgTypeInfo)>,
    /// What is read.
    pub columns: Vec<Column>,
}

impl Statement {
    pub(in crate::store) fn of<P: Parameters, R: Columns>(
        module: &'static str,
        name: &'static str,
        sql: &'static Sql<P, R>,
    ) -> Self {
        let parameters = P::NAMES.iter().copied().zip(P::types()).collect();
        Self { module, name, text: sql.text(), parameters, columns: R::columns() }
    }
}

/// All statements of a module. One that is not in the list is found by the test, and a list that nobody asks for by the compiler.
macro_rules! statements {
    ($($name:ident),+ $(,)?) => {
        /// The statements of this module.
        pub(in crate::store) fn statements() -> Vec<$crate::store::sql::Statement> {
            vec![$($crate::store::sql::Statement::of(module_path!(), stringify!($name), &$name)),+]
        }
    };
}
pub(in crate::store) use statements;

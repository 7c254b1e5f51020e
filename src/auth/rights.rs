//! Roles, what they may do, and what each method needs: the only table of it.

use std::ops::{BitOr, BitOrAssign};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What a method asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Look at queues, groups, tags, quotas and counters.
    Read,
    /// Consume and acknowledge.
    Consume,
    /// Send.
    Produce,
    /// Create, change and delete.
    Administer,
}

/// What a caller is in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May look.
    ReadOnly,
    /// May look, consume and acknowledge.
    Consumer,
    /// May look and send.
    Producer,
    /// May do everything.
    Admin,
}

impl Role {
    /// All roles, the weakest first.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::Consumer, Self::Producer, Self::Admin];

    /// As files and claims name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Consumer => "consumer",
            Self::Producer => "producer",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What it may do.
    pub const fn rights(self) -> Rights {
        match self {
            Self::ReadOnly => Rights::READ_ONLY,
            Self::Consumer => Rights(Rights::bit(Right::Read) | Rights::bit(Right::Consume)),
            Self::Producer => Rights(Rights::bit(Right::Read) | Rights::bit(Right::Produce)),
            Self::Admin => Rights::ALL,
        }
    }
}

/// By its name. Anything else is refused in words that name those that there are, whatever its type.
impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const NAMES: [&str; Role::ALL.len()] =
            [Role::ReadOnly.name(), Role::Consumer.name(), Role::Producer.name(), Role::Admin.name()];
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// To look.
    pub(crate) const READ_ONLY: Self = Self(Self::bit(Right::Read));
    /// Every right.
    pub const ALL: Self = Self(
        Self::bit(Right::Read) | Self::bit(Right::Consume) | Self::bit(Right::Produce) | Self::bit(Right::Administer),
    );

    /// Whether this right is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & Self::bit(right) != 0
    }

    const fn bit(right: Right) -> u8 {
        1 << right as u8
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Rights {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl FromIterator<Role> for Rights {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, |rights, role| rights | role.rights())
    }
}

/// What every method of `dms.v1` needs, the most frequent ones first.
pub const NEEDED: [(&str, Right); 19] = [
    ("/dms.v1.MessageService/SendMessages", Right::Produce),
    ("/dms.v1.MessageService/ConsumeMessages", Right::Consume),
    ("/dms.v1.MessageService/AckMessages", Right::Consume),
    ("/dms.v1.DeadLetterService/ConsumeDeadLetters", Right::Consume),
    ("/dms.v1.DeadLetterService/AckDeadLetters", Right::Consume),
    ("/dms.v1.QueueService/CreateQueue", Right::Administer),
    ("/dms.v1.QueueService/GetQueue", Right::Read),
    ("/dms.v1.QueueService/ListQueues", Right::Read),
    ("/dms.v1.QueueService/DeleteQueue", Right::Administer),
    ("/dms.v1.QueueService/CreateConsumerGroups", Right::Administer),
    ("/dms.v1.QueueService/ListConsumerGroups", Right::Read),
    ("/dms.v1.QueueService/DeleteConsumerGroup", Right::Administer),
    ("/dms.v1.QueueService/GetQuotas", Right::Read),
    ("/dms.v1.TagService/AddQueueTag", Right::Administer),
    ("/dms.v1.TagService/DeleteQueueTag", Right::Administer),
    ("/dms.v1.TagService/BatchQueueTags", Right::Administer),
    ("/dms.v1.TagService/ListQueueTags", Right::Read),
    ("/dms.v1.TagService/ListProjectTags", Right::Read),
    ("/dms.v1.TagService/SearchQueues", Right::Read),
];

/// The method at this path, under its one name.
pub fn method(path: &str) -> Option<&'static str> {
    NEEDED.iter().find(|(method, _)| *method == path).map(|(method, _)| *method)
}

/// What the method at this path needs; `None` for a path that is no method of ours.
pub fn needed(path: &str) -> Option<Right> {
    NEEDED.iter().find(|(method, _)| *method == path).map(|(_, right)| *right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_the_rights_of_the_table() {
        let rights = [Right::Read, Right::Consume, Right::Produce, Right::Administer];
        let expected = [
            (Role::ReadOnly, [true, false, false, false]),
            (Role::Consumer, [true, true, false, false]),
            (Role::Producer, [true, false, true, false]),
            (Role::Admin, [true; 4]),
        ];
        for (role, has) in expected {
            assert_eq!(rights.map(|right| role.rights().has(right)), has, "{role:?}");
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!(Role::named("root"), None);
        let both: Rights = [Role::Consumer, Role::Producer].into_iter().collect();
        assert_eq!(rights.map(|right| both.has(right)), [true, true, true, false]);
    }

    #[test]
    fn paths_that_are_no_method_need_nothing_that_anybody_could_have() {
        for path in ["", "/", "/dms.v1.MessageService/", "/dms.v1.MessageService/SendMessages/", "/x/y"] {
            assert_eq!(needed(path), None, "{path}");
        }
        assert_eq!(needed("/dms.v1.MessageService/SendMessages"), Some(Right::Produce));
    }
}

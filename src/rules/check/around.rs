//! What holds in a whole file: what its functions without a name take along from around them, and which keys it puts into
//! maps.

use std::collections::BTreeSet;

use rhai::{ASTNode, Expr, Stmt};

use super::kinds::variable;

/// What a function without a name is called.
const NAMELESS: &str = "anon$";

/// Names, of all the file's functions together.
#[derive(Default)]
pub struct Around {
    /// What a function declares itself.
    declared: BTreeSet<String>,
    /// What functions without a name take along.
    taken: BTreeSet<String>,
    /// What such a function assigns, perhaps to what it took.
    changed: BTreeSet<String>,
    /// Keys that are set.
    pub keys: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Around {
    /// Looks at one function more.
    pub fn add(&mut self, name: &str, statements: &[Stmt]) {
        self.functions.insert(name.to_owned());
        for statement in statements {
            statement.walk(&mut Vec::new(), &mut |path| {
                match path.last() {
                    Some(ASTNode::Stmt(Stmt::Share(names))) => {
                        self.taken.extend(names.iter().map(|(taken, _)| taken.name.to_string()));
                    }
                    Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => {
                        self.keys.extend(key(&assignment.1.lhs));
                        if is_nameless(name) {
                            self.changed.extend(variable(&assignment.1.lhs).map(ToOwned::to_owned));
                        }
                    }
                    Some(ASTNode::Stmt(statement)) => self.declared.extend(declared(statement)),
                    _ => {}
                }
                true
            });
        }
    }

    /// Whether a name, where a function without a name takes it along, can be nothing but a parameter of a function around
    /// it.
    pub fn is_a_parameter(&self, name: &str) -> bool {
        self.taken.contains(name) && !self.declared.contains(name)
    }

    /// Whether the file has a function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// Whether a name that is taken along may be another value from then on.
    pub fn changes(&self, name: &str) -> bool {
        self.changed.contains(name)
    }
}

/// Whether it stands in an expression: `|x| x + 1`.
pub fn is_nameless(name: &str) -> bool {
    name.starts_with(NAMELESS)
}

/// The names that a statement declares.
pub fn declared(statement: &Stmt) -> Vec<String> {
    match statement {
        Stmt::Var(variable, ..) => vec![variable.0.name.to_string()],
        Stmt::For(each, _) => {
            std::iter::once(&each.0).chain(each.1.iter()).map(|declared| declared.name.to_string()).collect()
        }
        Stmt::TryCatch(flow, _) => variable(&flow.expr).map(ToOwned::to_owned).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The last of `a.b.key` or `a.b["key"]`.
fn key(target: &Expr) -> Option<String> {
    match target {
        Expr::Dot(pair, ..) => key(&pair.rhs),
        Expr::Index(pair, ..) => match &pair.rhs {
            Expr::StringConstant(key, _) => Some(key.to_string()),
            right => key(right),
        },
        Expr::Property(property, _) => Some(property.2.to_string()),
        _ => None,
    }
}

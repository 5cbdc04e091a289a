//! Operators with Python's semantics.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::fault::{Fault, Result, fault, unsupported};
use crate::format::percent;
use crate::text::assert_length;
use crate::tree::{Comparison, Operator};
use crate::value::{Value, assert_items, equal, order};

/// Integers up to this one are exactly representable as floats.
const EXACT: i128 = 1 << 53;

pub(crate) fn binary(left: &Value, operator: Operator, right: &Value) -> Result<Value> {
    match (operator, left, right) {
        (Operator::Remainder, Value::Text(format), _) => percent(format, right),
        (_, Value::Safe(_), _) | (_, _, Value::Safe(_)) => {
            Err(unsupported(format!("{} with text marked safe", operator.symbol())))
        }
        (Operator::Add, Value::Text(left), Value::Text(right)) => {
            assert_length(left.len() + right.len())?;
            Ok(Value::Text(Rc::from([&**left, &**right].concat())))
        }
        (Operator::Add, Value::List(left), Value::List(right)) => {
            Value::list(joined(&left.items, &right.items)?)
        }
        (Operator::Add, Value::Tuple(left), Value::Tuple(right)) => {
            Value::tuple(joined(&left.items, &right.items)?)
        }
        (Operator::Multiply, Value::Text(_) | Value::List(_) | Value::Tuple(_), _) => repeated(left, right),
        (Operator::Multiply, _, Value::Text(_) | Value::List(_) | Value::Tuple(_)) => repeated(right, left),
        _ => arithmetic(left, operator, right),
    }
}

fn joined(left: &[Value], right: &[Value]) -> Result<Vec<Value>> {
    assert_items(left.len().checked_add(right.len()))?;
    Ok([left, right].concat())
}

fn repeated(of: &Value, times: &Value) -> Result<Value> {
    let count = times.as_integer().ok_or_else(|| undefined_for(of, Operator::Multiply, times))?;
    let count = usize::try_from(count.max(0)).map_err(|_| fault("too many repetitions"))?;
    match of {
        Value::Text(text) => {
            assert_length(text.len().saturating_mul(count))?;
            Ok(Value::text(&text.repeat(count)))
        }
        Value::List(sequence) => Value::list(cycled(&sequence.items, count)?),
        Value::Tuple(sequence) => Value::tuple(cycled(&sequence.items, count)?),
        other => Err(undefined_for(other, Operator::Multiply, times)),
    }
}

fn cycled(items: &[Value], times: usize) -> Result<Vec<Value>> {
    let count = assert_items(items.len().checked_mul(times))?;
    Ok(items.iter().cycle().take(count).cloned().collect())
}

fn arithmetic(left: &Value, operator: Operator, right: &Value) -> Result<Value> {
    if let (Some(a), Some(b)) = (left.as_integer(), right.as_integer()) {
        return integers(a, operator, b);
    }
    match (left.as_float(), right.as_float()) {
        (Some(a), Some(b)) => floats(a, operator, b).map(Value::Float),
        _ => Err(undefined_for(left, operator, right)),
    }
}

fn undefined_for(left: &Value, operator: Operator, right: &Value) -> Fault {
    match [left, right].into_iter().find(|value| value.is_undefined()) {
        Some(Value::Undefined(why)) => fault(why.to_string()),
        _ => fault(format!("{} of {} and {} is not defined", operator.symbol(), left.kind(), right.kind())),
    }
}

fn integers(a: i128, operator: Operator, b: i128) -> Result<Value> {
    let divisor = || if b == 0 { Err(fault("division by zero")) } else { Ok(b) };
    let number = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide => {
            let b = divisor()?;
            if a.abs() > EXACT || b.abs() > EXACT {
                return Err(unsupported("division of numbers of more than 53 bits"));
            }
            return Ok(Value::Float(a as f64 / b as f64));
        }
        Operator::FloorDivide => a.checked_div_euclid(divisor()?).map(|quotient| {
            // Python rounds down for either sign of the divisor.
            if b < 0 && a.rem_euclid(b) != 0 { quotient - 1 } else { quotient }
        }),
        Operator::Remainder => {
            a.checked_rem_euclid(divisor()?).map(|rest| if b < 0 && rest != 0 { rest + b } else { rest })
        }
        Operator::Power if b < 0 => return floats(a as f64, operator, b as f64).map(Value::Float),
        Operator::Power => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
    };
    number.map(Value::Integer).ok_or_else(|| unsupported("a whole number of more than 128 bits"))
}

fn floats(a: f64, operator: Operator, b: f64) -> Result<f64> {
    if b == 0.0 && matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Remainder) {
        return Err(fault("division by zero"));
    }
    Ok(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => {
            let quotient = (a - remainder(a, b)) / b;
            let floor = quotient.floor();
            if quotient == 0.0 {
                0.0_f64.copysign(a / b)
            } else if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        Operator::Remainder => remainder(a, b),
        Operator::Power => {
            if a == 0.0 && b < 0.0 {
                return Err(fault("0 cannot be raised to a negative power"));
            }
            let power = a.powf(b);
            if power.is_nan() && !a.is_nan() && !b.is_nan() {
                return Err(unsupported("a complex number"));
            }
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(fault("the result of ** is too large"));
            }
            power
        }
    })
}

/// Python's `%` of floats, which has the sign of the divisor.
fn remainder(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0.0_f64.copysign(b)
    } else if (rest < 0.0) == (b < 0.0) {
        rest
    } else {
        rest + b
    }
}

pub(crate) fn negative(value: &Value) -> Result<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Undefined(why) => Err(fault(why.to_string())),
        other => {
            let number = other.as_integer().and_then(i128::checked_neg);
            number.map(Value::Integer).ok_or_else(|| fault(format!("- of a {} is not defined", other.kind())))
        }
    }
}

/// Whether a comparison holds.
pub(crate) fn compare(left: &Value, comparison: Comparison, right: &Value) -> Result<bool> {
    let ordered = |accepted: &[Ordering]| {
        order(left, right).map(|ordering| ordering.is_some_and(|ordering| accepted.contains(&ordering)))
    };
    match comparison {
        Comparison::Equal => Ok(equal(left, right)),
        Comparison::NotEqual => Ok(!equal(left, right)),
        Comparison::Less => ordered(&[Ordering::Less]),
        Comparison::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
        Comparison::Greater => ordered(&[Ordering::Greater]),
        Comparison::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
        Comparison::In => contains(right, left),
        Comparison::NotIn => contains(right, left).map(|contained| !contained),
    }
}

/// Python's `in`.
fn contains(container: &Value, value: &Value) -> Result<bool> {
    match container {
        Value::Text(text) | Value::Safe(text) => match value.as_text() {
            Some(part) => Ok(text.contains(&**part)),
            None => Err(fault(format!("a string cannot contain a {}", value.kind()))),
        },
        Value::Dict(dict) => {
            if let Value::List(_) | Value::Dict(_) = value {
                return Err(fault(format!("a {} is not a dictionary key", value.kind())));
            }
            Ok(dict.get(value).is_some())
        }
        Value::Iterator(items) => {
            let mut items = items.borrow_mut();
            while let Some(item) = items.pop_front() {
                if equal(&item, value) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        container => Ok(container.items()?.iter().any(|item| equal(item, value))),
    }
}

//! A dashboard is a list of panels and a panel a list of queries; everything else is layout.

use serde_json::{Value, json};

/// Columns of Grafana's grid.
const COLUMNS: usize = 24;

/// Display of a panel's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The last value, large.
    Number,
    /// Lines over time.
    Lines,
}

impl Form {
    const fn size(self) -> (usize, usize) {
        match self {
            Self::Number => (6, 4),
            Self::Lines => (12, 8),
        }
    }
}

/// A query, and the label of its line.
pub(crate) type Query = (&'static str, &'static str);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) form: Form,
    pub(crate) title: &'static str,
    /// Grafana's unit: `s`, `bytes`, `percentunit`, `short`, ….
    pub(crate) unit: &'static str,
    /// Explanation of the panel.
    pub(crate) description: &'static str,
    pub(crate) queries: &'static [Query],
}

/// One dashboard.
#[derive(Debug, Clone, Copy)]
pub struct Dashboard {
    /// File name without the extension, and identifier.
    pub name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) panels: &'static [Panel],
}

impl Dashboard {
    /// Returns the panel's title and the query, for every query.
    pub fn queries(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let queries = |panel: &'static Panel| panel.queries.iter().map(|(query, _)| (panel.title, *query));
        self.panels.iter().flat_map(queries)
    }

    /// Returns the content of the dashboard's file.
    pub fn file(&self) -> String {
        format!("{:#}\n", self.json())
    }

    fn json(&self) -> Value {
        let (mut x, mut y, mut row_height) = (0, 0, 0);
        let position = |(id, panel): (usize, &Panel)| {
            let (width, height) = panel.form.size();
            if x + width > COLUMNS {
                (x, y) = (0, y + row_height);
                row_height = 0;
            }
            let placed = panel.json(id + 1, &json!({"x": x, "y": y, "w": width, "h": height}));
            (x, row_height) = (x + width, row_height.max(height));
            placed
        };
        let panels: Vec<Value> = self.panels.iter().enumerate().map(position).collect();
        json!({
            "uid": format!("podium-{}", self.name),
            "title": self.title,
            "tags": ["podium"],
            "editable": true,
            "schemaVersion": 39,
            "refresh": "10s",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "run",
                    "label": "Run",
                    "type": "query",
                    "datasource": source(),
                    "query": "label_values(podium_coordinator_steps, run)",
                    "refresh": 2,
                    "sort": 2,
                },
            ]},
            "links": [{"type": "dashboards", "tags": ["podium"], "title": "Podium", "asDropdown": false, "keepTime": true, "includeVars": true}],
            "panels": panels,
        })
    }
}

impl Panel {
    fn json(&self, id: usize, position: &Value) -> Value {
        let target = |(index, (query, legend)): (usize, &Query)| {
            let name = char::from(b'A' + index as u8).to_string();
            json!({"refId": name, "datasource": source(), "expr": query, "legendFormat": legend})
        };
        let targets: Vec<Value> = self.queries.iter().enumerate().map(target).collect();
        let (kind, options) = match self.form {
            Form::Number => {
                ("stat", json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}))
            }
            Form::Lines => (
                "timeseries",
                json!({"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}),
            ),
        };
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": position,
            "fieldConfig": {"defaults": {"unit": self.unit}, "overrides": []},
            "options": options,
            "targets": targets,
        })
    }
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${source}"})
}

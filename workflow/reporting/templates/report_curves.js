"use strict";
// The chart of the learning curves is made once its section comes near; until then, and where
// anything fails, the drawn figure stays.
(() => {
  const section = document.getElementById("curves");
  const data = JSON.parse(document.getElementById("curves-data").textContent);
  const chart = section.querySelector(".chart");
  const canvas = section.querySelector(".canvas");
  const boxes = [...chart.querySelectorAll("input[name=loss]")];
  const dashes = ["solid", "dotted", "dotdash"];
  const taken = new Map(); // loss -> number of its colour, the first that is free when it is chosen
  const which = chart.querySelector("select[name=study]"); // only a page of several studies has it
  const classes = chart.querySelector("select[name=class]");
  let study, plot, lines, points, ends;

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (loss) => data.colours[taken.get(loss) % data.colours.length] || style("--ink");
  const dash = (loss) => data.losses[loss].published ? "dashed" : dashes[Math.floor(taken.get(loss) / data.colours.length) % dashes.length];

  // Another study: its classes, the rarest staying the rarest; losses it lacks cannot be chosen.
  const enter = () => {
    const before = study?.classes.find((entry) => entry.name === classes.value);
    study = data.studies[which ? Number(which.value) : 0];
    const kept = before && study.classes.find((entry) => before.rarest ? entry.rarest : entry.name === before.name);
    const options = study.classes.map((entry) => new Option(`${entry.name}${entry.rarest ? " (rarest)" : ""}`, entry.name));
    classes.replaceChildren(new Option("mean of the classes", ""), ...options);
    classes.value = kept ? kept.name : "";
    const had = new Set(study.runs.map((run) => run.loss));
    boxes.forEach((box, loss) => { box.disabled = !had.has(loss); });
    // set and not found from the lines, of which there may be none
    const steps = study.runs.flatMap((run) => run.steps);
    const last = steps.reduce((a, b) => Math.max(a, b), 1);
    const [start, end] = [-0.04 * last, 1.04 * last];
    plot.x_range.setv({ start, end, reset_start: start, reset_end: end });
  };
  const choose = () => {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value)));
    for (const loss of [...taken.keys()]) if (!chosen.has(loss)) taken.delete(loss);
    for (const loss of chosen) {
      if (taken.has(loss)) continue;
      const used = new Set(taken.values());
      let free = 0;
      while (used.has(free)) free += 1;
      taken.set(loss, free);
    }
    return [...taken.keys()].sort((a, b) => a - b);
  };
  const median = (values) => {
    const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    if (!sorted.length) return null;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  };
  const mean = (values) => values.includes(null) ? null : values.reduce((a, b) => a + b, 0) / values.length;
  const values = (run, name) => name ? run.dice[name] : run.steps.map((_, i) => mean(study.classes.map((c) => run.dice[c.name][i])));
  const lost = (run, name) => name ? run.lost.includes(name) : run.lost.length > 0;
  const middleOf = (runs, name) => {
    const steps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
    const series = runs.map((run) => new Map(values(run, name).map((value, i) => [run.steps[i], value])));
    return { steps, dice: steps.map((step) => median(series.map((known) => known.get(step) ?? null))) };
  };

  const draw = () => {
    const name = classes.value;
    const every = chart.querySelector("input[name=lines]:checked").value === "seeds";
    const wide = { xs: [], ys: [], colour: [], dash: [], width: [], alpha: [] };
    const dots = { x: [], y: [], colour: [], loss: [], which: [], fate: [] };
    const crosses = { x: [], y: [], colour: [] };
    const rows = [];
    const apart = plot.x_range.end * 16 / Math.max(canvas.clientWidth - 90, 160); // a cross and a gap
    const add = (loss, steps, dice, which, fate, width, alpha) => {
      const shown = dice.map((value) => value ?? NaN);
      wide.xs.push(steps); wide.ys.push(shown); wide.colour.push(colour(loss)); wide.dash.push(dash(loss)); wide.width.push(width); wide.alpha.push(alpha);
      steps.forEach((step, i) => {
        dots.x.push(step); dots.y.push(shown[i]); dots.colour.push(colour(loss));
        dots.loss.push(data.losses[loss].name); dots.which.push(which); dots.fate.push(fate);
      });
    };
    for (const loss of choose()) {
      const runs = study.runs.filter((run) => run.loss === loss);
      const broken = runs.filter((run) => lost(run, name));
      const fate = !runs.length ? "not in this study" : broken.length ? `lost ${name || "a class"} in ${broken.length} of ${runs.length} runs` : `${runs.length} runs, none lost ${name || "a class"}`;
      const middle = middleOf(runs, name);
      if (every) {
        for (const run of runs) {
          add(loss, run.steps, values(run, name), `seed ${run.seed}`, lost(run, name) ? `lost ${run.lost.join(", ")}` : "kept every class shown", 1.6, .85);
        }
      } else {
        add(loss, middle.steps, middle.dice, `median of ${runs.length}`, fate, 2.6, 1);
      }
      const ends = every ? broken.map((run) => [run.steps, values(run, name)]) : broken.length ? [[middle.steps, middle.dice]] : [];
      for (const [steps, dice] of ends) {
        if (!steps.length) continue;
        const y = dice[dice.length - 1] ?? NaN;
        let x = steps[steps.length - 1];
        // those that end alike, as at 0, stand beside each other
        while (crosses.x.some((other, i) => Math.abs(other - x) < apart / 2 && Math.abs(crosses.y[i] - y) < 0.04)) x -= apart;
        crosses.x.push(x); crosses.y.push(y); crosses.colour.push(colour(loss));
      }
      const known = middle.dice.filter((value) => value !== null);
      rows.push([data.losses[loss].name, known.length ? known[known.length - 1].toFixed(2) : "–", known.length ? Math.max(...known).toFixed(2) : "–", fate]);
    }
    lines.data = wide; points.data = dots; ends.data = crosses;
    boxes.forEach((box) => {
      const swatch = box.nextElementSibling;
      swatch.style.borderTop = box.checked ? `3px ${dash(Number(box.value)) === "solid" ? "solid" : dash(Number(box.value)) === "dashed" ? "dashed" : "dotted"} ${colour(Number(box.value))}` : "";
    });
    chart.querySelector("output").textContent = `${rows.length} ${rows.length === 1 ? "loss" : "losses"} drawn, ${name || "mean of the classes"}: ${rows.map((row) => `${row[0]} ${row[1]}`).join(", ")}`;
    chart.querySelector(".readout tbody").replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      row.forEach((text, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (i === 1 || i === 2) cell.className = "n";
        if (!i) cell.scope = "row";
        cell.textContent = text;
        line.append(cell);
      });
      return line;
    }));
  };
  const dress = () => {
    const [ink, soft, line, paper] = ["--ink", "--soft", "--line", "--paper"].map(style);
    plot.background_fill_color = paper; plot.border_fill_color = paper; plot.outline_line_color = line;
    for (const axis of [...plot.below, ...plot.left]) {
      axis.axis_label_text_color = soft; axis.major_label_text_color = ink;
      axis.axis_label_text_font = axis.major_label_text_font = "system-ui, sans-serif";
      axis.axis_line_color = soft; axis.major_tick_line_color = soft; axis.minor_tick_line_color = null;
      axis.axis_label_text_font_style = "normal"; axis.axis_label_text_font_size = "13px"; axis.major_label_text_font_size = "12px";
    }
    for (const grid of plot.center) grid.grid_line_color = line;
    draw();
  };

  const start = async () => {
    const script = document.createElement("script");
    script.textContent = await unpack("curves-library");
    document.head.append(script);
    const B = window.Bokeh;
    lines = new B.ColumnDataSource({ data: { xs: [], ys: [], colour: [], dash: [], width: [], alpha: [] } });
    points = new B.ColumnDataSource({ data: { x: [], y: [], colour: [], loss: [], which: [], fate: [] } });
    ends = new B.ColumnDataSource({ data: { x: [], y: [], colour: [] } });
    plot = B.Plotting.figure({
      sizing_mode: "stretch_both", tools: "box_zoom,reset,save", active_drag: null,
      x_axis_label: "training step", y_axis_label: "validation Dice", x_range: [0, 1], y_range: [-0.03, 1.03],
    });
    const field = (name) => ({ field: name });
    plot.multi_line(field("xs"), field("ys"), { source: lines, line_color: field("colour"), line_dash: field("dash"), line_width: field("width"), line_alpha: field("alpha") });
    const dots = plot.scatter(field("x"), field("y"), { source: points, size: 7, fill_color: field("colour"), line_color: null, fill_alpha: .35 });
    plot.scatter(field("x"), field("y"), { source: ends, size: 13, marker: "x", line_color: field("colour"), line_width: 3 });
    plot.add_tools(new B.HoverTool({ renderers: [dots], tooltips: [["loss", "@loss"], ["run", "@which"], ["step", "@x"], ["Dice", "@y{0.000}"], ["outcome", "@fate"]] }));
    plot.toolbar.logo = null;
    enter();
    data.chosen.forEach((loss) => { boxes[loss].checked = true; });
    chart.hidden = false;
    dress();
    await B.Plotting.show(plot, canvas);
    section.classList.add("interactive");
    which?.addEventListener("input", enter); // before the chart's own listener, which draws
    chart.addEventListener("input", draw);
    chart.querySelector("button[name=none]").addEventListener("click", () => { boxes.forEach((box) => { box.checked = false; }); draw(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
  };
  const near = new IntersectionObserver((seen) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    start().catch((error) => { chart.hidden = true; console.error(error); });
  }, { rootMargin: "600px" });
  near.observe(section);
})();

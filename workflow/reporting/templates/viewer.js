"use strict";
// Cases in three dimensions: two views of one case, linked, each with a label map of its own.
(() => {
  const root = document.getElementById("viewer");
  const find = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];
  const message = find(".viewer-message");
  const fallback = message.textContent;
  const { cases, classes, errors } = JSON.parse(document.getElementById("viewer-data").textContent);
  const panes = all(".viewer-pane").map((figure) => ({
    figure,
    canvas: figure.querySelector("canvas"),
    choice: figure.querySelector("select"),
    caption: figure.querySelector("figcaption"),
  }));
  const axes = all(".viewer-axis");
  const turns = all(".viewer-turn");
  const channel = find(".viewer-channel select");
  const marked = find(".viewer-errors");
  let shown; // the case, once its volumes are unpacked

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const unpack = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const fail = (error) => {
    find(".viewer-body").hidden = true;
    message.hidden = false;
    message.textContent = `${fallback} (${error.message})`;
  };
  const element = (tag, text, attributes = {}) =>
    Object.assign(document.createElement(tag), { textContent: text, ...attributes });

  const load = async () => {
    const code = await unpack(document.getElementById("viewer-library").textContent);
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    return import(address).finally(() => URL.revokeObjectURL(address));
  };

  // Colour of each class, then of each kind of error; 0 is background and not drawn.
  const painted = [...classes, ...errors];
  const rgb = (colour) => [1, 3, 5].map((start) => Number.parseInt(colour.slice(start, start + 2), 16));
  const part = (index) => [0, ...painted.map(({ colour }) => rgb(colour)[index])];
  const lookup = {
    R: part(0), G: part(1), B: part(2), A: [0, ...painted.map(() => 255)],
    I: [0, ...painted.map((_, index) => index + 1)], labels: ["", ...painted.map(({ name }) => name)],
  };

  const wrong = (map, reference) => map.map((found, voxel) => {
    const truth = reference[voxel];
    if (found === truth) return found;
    return classes.length + (found === 0 ? 1 : truth === 0 ? 2 : 3);
  });

  // Surface nets: where two labels meet stands a quadrilateral, whose corners are the middles of
  // the cells around it, each drawn to the middle of where the surface crosses its edges.
  const surfaces = (labels, size, affine) => {
    const made = [];
    const label = (x, y, z) =>
      x < 0 || y < 0 || z < 0 || x >= size[0] || y >= size[1] || z >= size[2] ? 0 : labels[x + size[0] * (y + size[1] * z)];
    const edges = [];
    for (let one = 0; one < 8; one++) for (const bit of [1, 2, 4]) if (!(one & bit)) edges.push([one, one | bit]);
    const within = (corner) => [corner & 1, (corner >> 1) & 1, corner >> 2];
    const corner = ({ points, known }, value, cell) => {
      const key = cell.reduceRight((sum, place, axis) => sum * (size[axis] + 1) + place + 1, 0);
      if (!known.has(key)) {
        const inside = Array.from({ length: 8 }, (_, index) => label(...within(index).map((step, axis) => cell[axis] + step)) === value);
        const crossed = edges.filter(([one, other]) => inside[one] !== inside[other]);
        const voxel = cell.map((place, axis) => place + crossed.reduce((sum, [one, other]) => sum + within(one)[axis] + within(other)[axis], 0) / (2 * crossed.length));
        known.set(key, points.length / 3);
        for (const row of affine.slice(0, 3)) points.push(row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
      }
      return known.get(key);
    };
    const [a, b, c] = affine;
    const mirrored = a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]) < 0;
    const place = [0, 0, 0];
    for (place[2] = -1; place[2] < size[2]; place[2]++)
      for (place[1] = -1; place[1] < size[1]; place[1]++)
        for (place[0] = -1; place[0] < size[0]; place[0]++) {
          const here = label(...place);
          for (let axis = 0; axis < 3; axis++) {
            const there = label(place[0] + (axis === 0), place[1] + (axis === 1), place[2] + (axis === 2));
            if (here === there) continue;
            for (const [value, outwards] of [[here, true], [there, false]]) {
              if (!value) continue;
              const mesh = (made[value] ??= { value, points: [], triangles: [], known: new Map() });
              const ring = [[-1, -1], [0, -1], [0, 0], [-1, 0]].map(([u, v]) => {
                const cell = [...place];
                cell[(axis + 1) % 3] += u;
                cell[(axis + 2) % 3] += v;
                return corner(mesh, value, cell);
              });
              if (outwards === mirrored) ring.reverse();
              mesh.triangles.push(ring[0], ring[1], ring[2], ring[0], ring[2], ring[3]);
            }
          }
        }
    return Object.values(made);
  };

  // What is brighter than the image's mean, on a coarse grid: where in the body the labels lie.
  const outline = (voxels, size, affine) => {
    const step = Math.ceil(Math.max(...size) / 64);
    const coarse = size.map((length) => Math.ceil(length / step));
    const level = voxels.reduce((sum, grey) => sum + grey, 0) / voxels.length;
    const bright = new Uint8Array(coarse[0] * coarse[1] * coarse[2]);
    for (let z = 0, voxel = 0; z < size[2]; z += step)
      for (let y = 0; y < size[1]; y += step)
        for (let x = 0; x < size[0]; x += step)
          bright[voxel++] = Number(voxels[x + size[0] * (y + size[1] * z)] > level);
    return surfaces(bright, coarse, affine.map(([x, y, z, origin]) => [step * x, step * y, step * z, origin]));
  };

  const start = async () => {
    message.textContent = "The viewer is being unpacked …";
    const { Niivue, NVImage, NVMesh } = await load();
    find(".viewer-body").hidden = false;
    message.hidden = true;

    // One drawing a frame, however many things have changed; NiiVue would draw after each of them.
    let waiting = 0;
    const draw = () => {
      waiting ||= requestAnimationFrame(() => {
        waiting = 0;
        panes.forEach(({ view }) => view.drawScene());
      });
    };
    const quietly = (view, change) => {
      view.isBusy = true;
      change();
      view.isBusy = false;
      draw();
    };

    const turn = () => {
      const [azimuth, elevation] = turns.map(({ value }) => Number(value));
      for (const { view } of panes) Object.assign(view.scene, { renderAzimuth: azimuth, renderElevation: elevation });
      draw();
    };

    const title = ({ value }) => (value === "" ? "Image alone" : shown.maps[value].title);

    // To a point in fractions of the volume; every way of moving the crosshair ends here.
    const move = (fraction) => {
      const size = panes[0].view.volumes[0].dimsRAS.slice(1, 4);
      const voxel = size.map((length, axis) => Math.min(length - 1, Math.max(0, Math.round(fraction[axis] * length - 0.5))));
      axes.forEach((axis, index) => {
        axis.max = size[index] - 1;
        axis.value = voxel[index];
        axis.setAttribute("aria-valuetext", `slice ${voxel[index] + 1} of ${size[index]}`);
      });
      const middle = voxel.map((place, axis) => (place + 0.5) / size[axis]);
      for (const { view } of panes) view.scene.crosshairPos = middle;
      draw();
      const at = [...panes[0].view.frac2mm(middle)].slice(0, 3).map((x) => x.toFixed(0));
      const found = panes.map(({ view, choice }) => {
        const value = view.volumes[1].getValue(...voxel);
        const name = choice.value === "" ? "no labels" : value ? painted[value - 1].name : "background";
        return `${title(choice)}: ${name}`;
      });
      find(".viewer-place").textContent = `Crosshair at ${at.join(", ")} mm (voxels of ${shown.voxel} mm). ${found.join(". ")}.`;
    };
    const place = () => axes.map(({ value, max }) => (Number(value) + 0.5) / (Number(max) + 1));
    const home = () => move(panes[0].view.mm2frac(shown.focus));

    const paint = async ({ view, canvas, choice, caption }) => {
      const map = shown.maps[choice.value];
      let labels = map ? await unpack(map.voxels) : new Uint8Array(shown.reference.length);
      if (map && marked.checked) labels = wrong(labels, shown.reference);
      const { hdr, img } = view.volumes[1];
      img.set(labels);
      const mesh = ({ points, triangles }, colour, opacity) => new NVMesh(
        new Float32Array(points), new Uint32Array(triangles), "", new Uint8Array([...colour, 255]), opacity, true, view.gl);
      // The smallest is drawn first, so that it is seen through the larger ones around it.
      const made = surfaces(labels, hdr.dims.slice(1, 4), hdr.affine)
        .sort((one, other) => one.triangles.length - other.triangles.length)
        .map((found, index) => mesh(found, rgb(painted[found.value - 1].colour), index ? 0.6 : 1));
      made.push(...shown.outline.map((found) => mesh(found, [255, 255, 255], 0.12)));
      quietly(view, () => {
        view.meshes.forEach((mesh) => mesh.unloadMesh(view.gl));
        view.meshes = made;
        view.updateGLVolume();
      });
      caption.textContent = map ? map.score : "";
      canvas.setAttribute("aria-label", `${shown.title}, ${title(choice)}: three slices and the surface of the labels`);
    };
    const repaint = async (changed) => {
      await Promise.all(changed.map(paint));
      move(place());
    };

    const volume = (name, voxels) => {
      const file = new Uint8Array(shown.header.length + voxels.length);
      file.set(shown.header);
      file.set(voxels, shown.header.length);
      return NVImage.loadFromUrl({ url: name, name, buffer: file.buffer });
    };
    const image = async () => {
      const voxels = await unpack(shown.images[channel.value].voxels);
      for (const { view } of panes) {
        const behind = await volume("image.nii", voxels);
        shown.outline ??= outline(voxels, behind.hdr.dims.slice(1, 4), behind.hdr.affine);
        const labels = await volume("labels.nii", shown.reference);
        Object.assign(behind, { cal_min: 0, cal_max: 255 });
        Object.assign(labels, { opacity: 0.75 }).setColormapLabel(lookup);
        quietly(view, () => {
          view.volumes = [];
          view.addVolume(behind);
          view.addVolume(labels);
        });
      }
      await Promise.all(panes.map(paint));
    };

    // One change after the other: unpacking takes time, and a hasty reader must not mix two cases.
    let last = Promise.resolve();
    const soon = (change) => {
      root.setAttribute("aria-busy", "true");
      const mine = last.then(change).catch(fail).finally(() => {
        if (mine === last) root.setAttribute("aria-busy", "false");
      });
      last = mine;
    };

    const fill = (select, entries, value) => {
      select.replaceChildren(...entries.map(([key, text]) => element("option", text, { value: key })));
      select.value = entries.some(([key]) => key === value) ? value : entries[0][0];
    };
    const show = async (index) => {
      const { header, ...rest } = cases[index];
      shown = { ...rest, header: bytes(header), reference: await unpack(rest.maps[0].voxels) };
      fill(channel, shown.images.map(({ title }, key) => [String(key), title]), channel.value);
      find(".viewer-channel").hidden = shown.images.length < 2;
      const entries = [...shown.maps.map(({ title, mean }, key) => [String(key), title + mean]), ["", "Image alone"]];
      panes.forEach(({ choice }, side) => fill(choice, entries, choice.options.length ? choice.value : String(side)));
      await image();
      home();
    };

    for (const pane of panes) {
      const view = new Niivue({
        logLevel: "error", loadingText: "", dragAndDropEnabled: false, scrollRequiresFocus: true,
        isNearestInterpolation: true, showLegend: false, backColor: [0.13, 0.13, 0.13, 1],
        crosshairWidth: 0.6, crosshairWidthUnit: "percent", crosshairColor: [1, 1, 1, 0.8], show3Dcrosshair: true, isOrientCube: true,
        multiplanarLayout: 2, multiplanarShowRender: 1, multiplanarForceRender: true, meshThicknessOn2D: 0,
      });
      // The voxels of the image would hide the surfaces, and are slow without a graphics processor.
      view.drawImage3D = () => {};
      view.onLocationChange = () => move(view.scene.crosshairPos);
      view.onAzimuthElevationChange = (azimuth, elevation) => {
        turns[0].value = ((azimuth % 360) + 360) % 360;
        turns[1].value = elevation;
        turn();
      };
      await view.attachToCanvas(pane.canvas, false);
      view.scene.volScaleMultiplier = 1.25;
      pane.view = view;
      pane.choice.addEventListener("change", () => soon(() => repaint([pane])));
      // Before NiiVue's own keys, which would also zoom, clip and change the layout.
      pane.figure.addEventListener("keydown", (event) => {
        if (event.target !== pane.canvas) return;
        event.stopPropagation();
        key(event);
      }, true);
    }
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1], PageDown: [2, -1], PageUp: [2, 1] };
    const key = (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Home") home();
      else if (event.key in steps) {
        const [index, sign] = steps[event.key];
        if (event.shiftKey && index < 2) {
          turns[index].value = Number(turns[index].value) + 10 * sign;
          turn();
        } else {
          axes[index].value = Number(axes[index].value) + sign;
          move(place());
        }
      } else return;
      event.preventDefault();
    };
    axes.forEach((axis) => axis.addEventListener("input", () => move(place())));
    turns.forEach((slider) => slider.addEventListener("input", turn));
    find(".viewer-home").addEventListener("click", home);
    marked.addEventListener("change", () => soon(() => repaint(panes)));
    channel.addEventListener("change", () => soon(async () => { await image(); move(place()); }));
    cases.forEach(({ title }, index) => {
      const label = element("label", "");
      const radio = element("input", "", { type: "radio", name: "viewer-case", checked: index === 0 });
      radio.addEventListener("change", () => soon(() => show(index)));
      label.append(radio, ` ${title}`);
      find(".viewer-cases").append(label);
    });
    for (const { name, colour } of painted) {
      const swatch = element("span", name);
      const colourful = element("i", "");
      colourful.style.background = colour;
      swatch.prepend(colourful);
      find(".viewer-legend").append(swatch);
    }
    turns[0].value = 110;
    turns[1].value = 15;
    soon(() => show(0));
    turn();
  };

  const able = typeof DecompressionStream === "function" && document.createElement("canvas").getContext("webgl2");
  if (!able) return;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    observer.disconnect();
    start().catch(fail);
  }, { rootMargin: "300px" }).observe(root);
})();

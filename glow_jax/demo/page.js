// The drawing pad: a mouse, a finger or a pen draws; so do the arrow keys while Space is on.
const PAD = { side: 224, step: 8, pen: 20 };
let at = { x: PAD.side / 2, y: PAD.side / 2 };
let inks = false;

function surface() {
  const pad = document.getElementById("pad");
  if (!pad) return null;
  if (!pad.dataset.ready) {
    pad.dataset.ready = "yes";
    clearPad(pad);
  }
  return pad;
}

function clearPad(pad) {
  const brush = pad.getContext("2d");
  brush.fillStyle = pad.dataset.paper;
  brush.fillRect(0, 0, pad.width, pad.height);
  pad.dataset.drawn = "";
  at = { x: PAD.side / 2, y: PAD.side / 2 };
  inks = false;
}

function stroke(pad, from, to) {
  const brush = pad.getContext("2d");
  brush.strokeStyle = document.getElementById("ink")?.value || "#ffffff";
  brush.lineWidth = PAD.pen;
  brush.lineCap = "round";
  brush.beginPath();
  brush.moveTo(from.x, from.y);
  brush.lineTo(to.x, to.y);
  brush.stroke();
  pad.dataset.drawn = "yes";
}

function place(pad, event) {
  const box = pad.getBoundingClientRect();
  const scale = pad.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

document.addEventListener("pointerdown", (event) => {
  const pad = surface();
  if (event.target !== pad || !pad) return;
  pad.setPointerCapture(event.pointerId);
  at = place(pad, event);
  stroke(pad, at, at);
});

document.addEventListener("pointermove", (event) => {
  const pad = surface();
  if (event.target !== pad || !pad || !event.buttons) return;
  const to = place(pad, event);
  stroke(pad, at, to);
  at = to;
});

document.addEventListener("keydown", (event) => {
  const pad = surface();
  if (event.target !== pad || !pad) return;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === " ") {
    inks = !inks;
    if (inks) stroke(pad, at, at);
  } else if (event.key in moves) {
    const [x, y] = moves[event.key];
    const inside = (value) => Math.min(PAD.side, Math.max(0, value));
    const to = { x: inside(at.x + PAD.step * x), y: inside(at.y + PAD.step * y) };
    if (inks) stroke(pad, at, to);
    at = to;
  } else {
    return;
  }
  event.preventDefault();
});

window.glowPad = {
  file: () =>
    new Promise((resolve) => {
      const file = document.getElementById("file").files[0];
      if (!file) return resolve(["", ""]);
      const reader = new FileReader();
      reader.onload = () => resolve([reader.result, file.name]);
      reader.onerror = () => resolve(["", ""]);
      reader.readAsDataURL(file);
    }),
  address: () => {
    const pad = surface();
    return pad && pad.dataset.drawn ? pad.toDataURL("image/png") : "";
  },
  clear: () => {
    const pad = surface();
    if (pad) clearPad(pad);
  },
};

// What is new and to be heard goes to one place that a screen reader listens to. A sentence that
// changes keeps its element: gradio changes the text in it.
new MutationObserver((changes) => {
  const heard = new Set();
  for (const change of changes) {
    const place = change.target instanceof Element ? change.target : change.target.parentElement;
    const sentence = place?.closest("[data-aloud]");
    if (sentence) heard.add(sentence);
    for (const node of change.addedNodes) {
      if (!(node instanceof Element)) continue;
      if (node.matches("[data-aloud]")) heard.add(node);
      for (const part of node.querySelectorAll("[data-aloud]")) heard.add(part);
    }
  }
  const said = document.getElementById("said");
  const texts = [...heard].map((sentence) => sentence.textContent);
  if (said && texts.length) said.textContent = texts.join(" ");
}).observe(document, { childList: true, characterData: true, subtree: true });

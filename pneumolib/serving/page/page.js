// The page: what a person does, and what is asked of the server for it.

import * as api from './api.js';
import * as show from './show.js';
import { $ } from './show.js';

const state = { model: null, point: '', files: [], index: 0, phantom: false, answer: null, run: null };

// === Asking ===

// `keep` leaves the answer in place while the same X-ray is asked about anew.
async function look({ keep = false } = {}) {
  state.run?.abort();
  const run = state.run = new AbortController();
  const isCurrent = () => run === state.run;
  const file = state.files[state.index];
  show.opened(state);
  if (!keep) {
    state.answer = null;
    show.noPicture();
    $('provenance').textContent = '';
    show.say('reading');
    show.preview(file, () => isCurrent() && !state.answer);
  }
  show.busy('Reading the X-ray');
  try {
    const limit = state.model?.input.max_bytes;
    if (file.size > limit) throw new api.Problem(show.tooLarge(file.size, limit));
    const answer = await api.patiently(() => api.predict(file, state.point, run.signal), run.signal, (seconds) =>
      show.busy(`The server is busy. Trying again in ${seconds} s`));
    if (!isCurrent()) return;
    state.answer = answer;
    show.answer(answer);
  } catch (error) {
    if (!isCurrent()) return;
    if (!run.signal.aborted) failed(error);
    else if (keep) choosePoint(state.answer.operating_point.name);
    else clear();
  } finally {
    if (isCurrent()) {
      state.run = null;
      show.busy('');
    }
  }
}

function failed(error) {
  state.answer = null;
  if (error.status === 401) {
    show.noPicture();
    $('key-problem').hidden = !api.hasKey();
    show.say('key', api.hasKey() ? 'The server did not take this key.' : 'This server asks for an API key.');
    $('key-value').focus();
  } else if (error instanceof api.Problem) {
    show.problem(error);
  } else {
    show.problem({ title: 'The page failed', detail: String(error), code: 'page' });
    throw error;
  }
}

// At the start, and again after something stood in the way.
async function begin() {
  try {
    if (!state.model) {
      const never = new AbortController().signal;
      meet(await api.patiently(() => api.model(never), never, () => {}));
    }
  } catch (error) {
    failed(error);
    return;
  }
  if (!state.files.length) show.say('empty');
  else if (!state.run && !state.answer) look();
}

function meet(model) {
  state.model = model;
  show.model(model);
  $('point-list').replaceChildren(...model.operating_points.map(({ name }) => {
    const radio = show.make('input', '', { type: 'radio', name: 'point', value: name });
    return show.make('label', '', {}, radio, show.make('span', show.words(name)));
  }));
  const names = model.operating_points.map(({ name }) => name);
  choosePoint(names.includes('balanced') ? 'balanced' : names[0]);
  $('points').hidden = false;
}

function choosePoint(name) {
  state.point = name;
  for (const radio of $('point-list').querySelectorAll('input')) radio.checked = radio.value === name;
  show.point(state.model.operating_points.find((point) => point.name === name));
}

// === What a person does ===

function open(files, phantom = false) {
  if (!files.length) return;
  Object.assign(state, { files: [...files], index: 0, phantom });
  look();
}

function clear() {
  state.run?.abort();
  Object.assign(state, { files: [], index: 0, phantom: false, answer: null, run: null });
  show.busy('');
  show.closed();
  show.say('empty', 'No X-ray.');
}

function step(by) {
  state.index += by;
  look();
}

async function openExample(name) {
  const response = await fetch(`examples/${name}.png`).catch(() => null);
  if (!response?.ok) {
    show.problem({ title: 'The example did not come', detail: 'The server did not give it.', code: 'unreachable' });
    return;
  }
  open([new File([await response.blob()], `PHANTOM, ${name}`, { type: 'image/png' })], true);
}

const pick = () => $('file').click();

$('choose').addEventListener('click', pick);
$('another').addEventListener('click', pick);
$('instead').addEventListener('click', pick);
$('clear').addEventListener('click', clear);
$('cancel').addEventListener('click', () => state.run?.abort());
$('previous').addEventListener('click', () => step(-1));
$('next').addEventListener('click', () => step(1));
$('again').addEventListener('click', begin);
$('file').addEventListener('change', ({ target }) => {
  open(target.files);
  target.value = ''; // so that the same file can be chosen again
});
for (const button of document.querySelectorAll('[data-example]')) {
  button.addEventListener('click', () => openExample(button.dataset.example));
}
for (const [id, event] of [['heat-on', 'change'], ['strength', 'input']]) $(id).addEventListener(event, show.heatMap);
$('points').addEventListener('change', ({ target }) => {
  choosePoint(target.value);
  if (state.files.length) look({ keep: Boolean(state.answer) });
});
$('key').addEventListener('submit', (event) => {
  event.preventDefault();
  api.useKey($('key-value').value.trim());
  $('key-value').value = '';
  begin();
});
document.addEventListener('keydown', ({ key }) => {
  if (key === 'Escape') state.run?.abort();
});
document.addEventListener('paste', (event) => {
  const { files } = event.clipboardData;
  if (files.length) event.preventDefault();
  open(files);
});

// The whole page takes what is dropped: beside the film, the browser would leave the page and open the file.
const holdsFiles = (event) => event.dataTransfer?.types.includes('Files');
for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  window.addEventListener(type, (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    const left = type === 'dragleave' && event.relatedTarget === null;
    $('main').classList.toggle('dragging', type !== 'drop' && !left);
    if (type === 'drop') open(event.dataTransfer.files);
  });
}

begin();

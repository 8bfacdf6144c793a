// Shows what the server told. Its words go in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

const SAID = ['empty', 'reading', 'result', 'refusal', 'error', 'key'];
// What to do about the file; asking again with the same one would change nothing.
const FILE_ADVICE = {
  body_too_large: 'Save the picture smaller.',
  image_too_large: 'Save the picture smaller.',
  undecodable_image: 'Take the file as it came from the device, or save it anew as PNG or JPEG.',
  unsupported_media_type: 'Save the picture as JPEG, PNG, TIFF, BMP, WebP or DICOM.',
  unreadable: 'Choose one or several picture files.',
};
const ADVICE = {
  unreachable: 'See whether the server still runs, then try again.',
  queue_full: 'Try again in a little while.',
  deadline_passed: 'Try again in a little while.',
  not_ready: 'Try again in a little while.',
};

const FAINT = 12; // opacity, of 255, up to which a place looks bare

const NUMBERS = { val_auc: 'AUC on validation X-rays', shifted_auc: 'AUC on shifted validation X-rays' };

// One of SAID, with what a screen reader is to hear of it.
export function say(name, announcement = '') {
  $('main').dataset.state = name;
  for (const each of SAID) $(each).hidden = each !== name;
  $('announce').textContent = announcement;
}

export function percent(share, digits = 1) {
  const least = 10 ** -digits;
  const value = 100 * share;
  if (value > 0 && value < least / 2) return `< ${least}\u202f%`;
  if (value < 100 && value >= 100 - least / 2) return `> ${(100 - least).toFixed(digits)}\u202f%`;
  return `${value.toFixed(digits)}\u202f%`;
}

// Enough digits to tell the two apart, so that no number seems to contradict the decision.
function apart(a, b) {
  let digits = 1;
  while (digits < 4 && a !== b && percent(a, digits) === percent(b, digits)) digits++;
  return [percent(a, digits), percent(b, digits)];
}

export const words = (name) => name.replaceAll('_', ' ');

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

export const tooLarge = (size, limit) => ({
  code: 'body_too_large',
  title: 'The file is too large',
  detail: `This server takes files of up to ${megabytes(limit)}; this one has ${megabytes(size)}. It was not sent.`,
});

export function answer(told) {
  const { model, operating_point: point, timing } = told;
  $('provenance').textContent =
    `Answered in ${Math.max(1, Math.round(timing.total))} ms by ${model.name}, pneumolib ${model.version}.`;
  picture(told.picture, told.heatmap);
  if (!told.input.ok) {
    $('reason').textContent = sentence(told.input.reason);
    say('refusal', `Refused, no answer: ${told.input.reason}.`);
    return;
  }
  const [p, threshold] = apart(told.probability, point.threshold);
  const ill = told.decision === 'pneumonia';
  $('result').dataset.decision = told.decision;
  $('decision').textContent = sentence(told.decision, '');
  $('probability').textContent = p;
  $('mark').textContent = `${words(point.name)} ${threshold}`;
  $('scale').ariaLabel = `Scale from 0 to 100 %: probability ${p}, operating point ${threshold}`;
  $('scale').style.setProperty('--p', told.probability);
  $('scale').style.setProperty('--t', point.threshold);
  $('sentence').textContent =
    `${p} ${ill ? 'reaches' : 'is below'} the operating point “${words(point.name)}”, ${threshold}.`;
  subtypes(told.subtypes);
  say('result', `${sentence(told.decision)} Probability of pneumonia ${p}, operating point ${threshold}.`);
}

const sentence = (text, end = '.') => text[0].toUpperCase() + text.slice(1) + end;

function subtypes(found) {
  $('subtypes').hidden = !found;
  if (!found) return;
  const rows = ['bacterial', 'viral'].map((name) => {
    const bar = make('i');
    bar.style.setProperty('--share', found[name]);
    return [make('dt', name), make('dd', percent(found[name]), {}, bar)];
  });
  $('subtype-bars').replaceChildren(...rows.flat());
}

export function make(tag, text = '', properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), { textContent: text }, properties);
  element.prepend(...children);
  return element;
}

// === The picture ===

export function picture(seen, heat) {
  $('stack').hidden = false;
  shape(seen.width, seen.height);
  $('picture').alt = 'The X-ray as the server read it';
  $('picture').src = dataUrl(seen);
  $('heat-controls').disabled = !heat;
  if (heat) $('heat').src = dataUrl(heat);
  else $('heat').removeAttribute('src');
  warmth(heat);
  heatMap();
}

// A map without heat cannot be seen, so words have to say it.
async function warmth(heat) {
  $('cold').hidden = true;
  if (heat) {
    await $('heat').decode().catch(() => {});
    const canvas = make('canvas', '', { width: heat.width, height: heat.height });
    const context = canvas.getContext('2d');
    context.drawImage($('heat'), 0, 0);
    const { data } = context.getImageData(0, 0, heat.width, heat.height);
    $('cold').hidden = data.some((value, i) => i % 4 === 3 && value > FAINT);
  }
  $('legend').hidden = !$('cold').hidden;
}

// What the browser itself can show, until the server has answered; of DICOM and TIFF that is nothing.
export async function preview(file, isCurrent) {
  const address = URL.createObjectURL(file);
  const image = new Image();
  image.src = address;
  const known = await image.decode().then(() => true, () => false);
  if (known && isCurrent()) {
    shape(image.naturalWidth, image.naturalHeight);
    $('picture').alt = 'The X-ray';
    $('picture').src = address;
    $('stack').hidden = false;
    await $('picture').decode().catch(() => {});
  }
  URL.revokeObjectURL(address);
}

export function noPicture() {
  $('stack').hidden = true;
  for (const id of ['picture', 'heat']) $(id).removeAttribute('src');
  $('heat-controls').disabled = true;
}

export function heatMap() {
  $('heat').hidden = !$('heat-on').checked || !$('heat').hasAttribute('src');
  $('heat').alt = 'Heat map: what speaks for pneumonia';
  $('heat').style.opacity = $('strength').value / 100;
  $('strength').ariaValueText = `${$('strength').value} %`;
}

const shape = (width, height) => $('stack').style.setProperty('--ratio', width / height);

const dataUrl = ({ media_type: type, data }) => `data:${type};base64,${data}`;

// === Around it ===

export function opened({ files, index, phantom }) {
  const hadFocus = $('welcome').contains(document.activeElement);
  $('welcome').hidden = true;
  $('viewer').classList.add('open');
  if (hadFocus) $('another').focus({ preventScroll: true });
  $('badge').hidden = !phantom;
  $('result-of').textContent = phantom ? 'The detector decides on a PHANTOM' : 'The detector decides';
  $('file-name').textContent = files[index].name;
  $('steps').hidden = files.length < 2;
  $('place').textContent = `${index + 1} of ${files.length}`;
  $('previous').disabled = index === 0;
  $('next').disabled = index === files.length - 1;
}

export function closed() {
  noPicture();
  $('welcome').hidden = false;
  $('viewer').classList.remove('open');
  $('provenance').textContent = '';
  $('choose').focus({ preventScroll: true });
}

export function busy(text) {
  const hadFocus = document.activeElement === $('cancel');
  $('busy').hidden = !text;
  $('busy-text').textContent = text;
  $('answer').ariaBusy = String(Boolean(text));
  if (!text && hadFocus) $('another').focus({ preventScroll: true });
}

export function problem({ title, detail, code, requestId }) {
  noPicture();
  $('provenance').textContent = '';
  $('error-title').textContent = title;
  $('error-detail').textContent = detail;
  $('again').hidden = code in FILE_ADVICE;
  $('instead').hidden = !$('again').hidden;
  $('error-advice').textContent = FILE_ADVICE[code] ?? ADVICE[code] ?? `Try again; if it stays so, tell whoever runs this server${requestId ? `: request ${requestId}` : ''}.`;
  say('error', `${title}. ${detail}`);
}

// === The detector ===

export function model(told) {
  $('notice').textContent = told.notice;
  $('phantom-model').hidden = !told.model.phantom;
  const facts = {
    name: told.model.name,
    network: `${told.architecture}, ${told.size} × ${told.size} pixels, ${told.classes.join(', ')}`,
    ...Object.fromEntries(Object.entries(told.validation).map(([name, value]) => [NUMBERS[name] ?? words(name), value.toFixed(4)])),
    temperature: told.temperature.toFixed(3),
    'takes files up to': megabytes(told.input.max_bytes),
    'made by': `pneumolib ${told.model.version}`,
    'SHA-256': told.model.sha256,
  };
  $('fact-list').replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make('dt', name), make('dd', value)]));
  $('fact-points').replaceChildren(...told.operating_points.map((point) => make('tr', '', {},
    make('th', words(point.name), { scope: 'row' }),
    ...[point.threshold, point.sensitivity, point.specificity].map((value) => make('td', percent(value))),
    make('td', point.rule))));
  $('facts').hidden = false;
}

export function point({ threshold, sensitivity, specificity }) {
  $('point-note').textContent = `Decides pneumonia from ${percent(threshold)} on. On validation X-rays it found ${percent(sensitivity)} of the pneumonias and called ${percent(specificity)} of the healthy normal.`;
}

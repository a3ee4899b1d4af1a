// Runs once for the element of painter.py: sets up each canvas that comes, paints, and sends what was painted.
const SIDE = 768, COLOUR = '#ff4040';  // pixels of what is sent at the most
const setUp = canvas => {
  canvas.dataset.ready = 'yes';
  const image = element.querySelector('.paint img');
  const begin = () => {
    const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
    canvas.width = Number(canvas.dataset.width) || Math.round(image.naturalWidth * scale);
    canvas.height = Number(canvas.dataset.height) || Math.round(image.naturalHeight * scale);
    if (!canvas.dataset.mask) return;
    const mask = new Image();
    mask.onload = () => {
      const pen = canvas.getContext('2d');
      pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
      const data = pen.getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < data.data.length; i += 4) {
        data.data.set([255, 64, 64, data.data[i]], i);  // grey is half a mask
      }
      pen.putImageData(data, 0, 0);
    };
    mask.src = canvas.dataset.mask;
  };
  if (image.complete && image.naturalWidth) begin(); else image.addEventListener('load', begin);
};
const find = () => { for (const canvas of element.querySelectorAll('canvas:not([data-ready])')) setUp(canvas); };
new MutationObserver(find).observe(element, {childList: true, subtree: true});
find();
const send = () => {
  const canvas = element.querySelector('canvas');
  trigger('click', {act: 'mask', key: canvas?.dataset.key, arg: canvas ? canvas.toDataURL('image/png') : ''});
};
let last = null;
const place = (canvas, event) => {
  const box = canvas.getBoundingClientRect();
  const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
  return [across * canvas.width, down * canvas.height];
};
const stroke = (canvas, to) => {
  const pen = canvas.getContext('2d');
  const width = Number(element.querySelector('input[type=range]').value) / 100 * Math.max(canvas.width, canvas.height);
  Object.assign(pen, {lineWidth: width, lineCap: 'round', strokeStyle: COLOUR});
  pen.globalCompositeOperation = element.querySelector('input[type=checkbox]').checked ? 'destination-out'
    : 'source-over';
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(to[0] + .01, to[1]); pen.stroke();
  last = to;
};
element.addEventListener('pointerdown', event => {
  const canvas = event.target.closest('canvas');
  if (!canvas) return;
  event.preventDefault(); canvas.setPointerCapture(event.pointerId);
  last = place(canvas, event); stroke(canvas, last);
});
element.addEventListener('pointermove', event => {
  const canvas = event.target.closest('canvas');
  if (canvas && last) stroke(canvas, place(canvas, event));
});
element.addEventListener('pointerup', () => { if (last) { last = null; send(); } });
element.addEventListener('click', event => {
  if (!event.target.closest('button[data-clear]')) return;
  const canvas = element.querySelector('canvas');
  canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
  send();
});

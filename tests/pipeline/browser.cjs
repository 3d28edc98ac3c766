// Opens a page offline in headless Chromium, photographs it, drags the first mesh or, if a value is given,
// moves the first slider there, and photographs it again.
// Prints what the console showed and what was asked of the network.
const path = require("path");
const { pathToFileURL } = require("url");

async function main([page_url, first, turned, slider]) {
  const folder = path.join(process.env.NODE_PATH, "@sparticuz/chromium");
  const main_file = path.join(folder, require(path.join(folder, "package.json")).main);
  const { default: chromium } = await import(pathToFileURL(main_file));
  const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));
  const browser = await puppeteer.launch({
    executablePath: await chromium.executablePath(),
    headless: "shell",
    args: [...chromium.args, "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
  });
  const page = await browser.newPage();
  const messages = [];
  page.on("console", (message) => messages.push(message.text()));
  page.on("pageerror", (error) => messages.push(error.message));
  page.on("request", (request) => /^https?:/.test(request.url()) && messages.push(request.url()));
  await page.setOfflineMode(true);
  await page.setViewport({ width: 900, height: 560 });
  await page.goto(page_url);
  // Meshes below the window are not loaded before they are scrolled to
  const loaded = () => document.querySelector("model-viewer").loaded;
  await page.waitForFunction(loaded, { timeout: 90000 });
  const settle = () => new Promise((resolve) => setTimeout(resolve, 2000));
  await settle();
  await page.screenshot({ path: first });
  if (slider !== undefined) {
    const input = await page.$("#morphs input");
    await input.evaluate((element, value) => {
      element.value = value;
      element.dispatchEvent(new Event("input", { bubbles: true }));
    }, slider);
    await settle();
    await page.screenshot({ path: turned });
    await browser.close();
    return console.log(JSON.stringify({ messages }));
  }
  const box = await (await page.$("model-viewer")).boundingBox();
  await page.mouse.move(box.x + 100, box.y + 100);
  await page.mouse.down();
  await page.mouse.move(box.x + 200, box.y + 100, { steps: 8 });
  await page.mouse.up();
  await settle();
  await page.screenshot({ path: turned });
  await browser.close();
  console.log(JSON.stringify({ messages }));
}

main(process.argv.slice(2));

"""The words of the synthetic world: interest, sub-topic, service, and what its titles speak of.

Within an interest no two services share a word, so that only behaviour ties a skillet in the shop
to a braised recipe in the news.
"""

WORDS = """
cooking
 baking
  shop rolling pin; bundt tin; proofing basket; pastry brush; flour sifter; stand mixer
  news sourdough revival; wheat prices; gluten labels; yeast shortage; bread subsidies
  films patissier; village oven; wedding cake; sugar baron; gingerbread widow; cupcake rivals
 grilling
  shop charcoal kettle; rib rack; basting mop; tongs set; smoker box; meat thermometer
  news barbecue bans; beef exports; brisket contest; butcher licences; burger tax; methane levy
  films pitmaster; cookout massacre; steak inspector; backyard duel; sauce heist
 coffee
  shop burr grinder; gooseneck kettle; moka pot; milk frother; portafilter; drip cone
  news arabica harvest; espresso census; roasters union; caffeine study; bean futures; latte economy
  films barista; midnight cafe; plantation heir; last percolator; cappuccino affair; diner waitress
 noodles
  shop carbon steel wok; bamboo steamer; ramen bowl; chopsticks; rice cooker; spice mortar
  news stall permits; soy tariffs; dumpling festival; miso recall; hawker closures
  films noodle master; lantern kitchen; wonton inheritance; tofu detective; rickshaw chef
 preserving
  shop mason jar; fermenting crock; vacuum sealer; jelly strainer; dehydrator; pickle press
  news botulism alert; canning boom; kimchi diplomacy; orchard surplus; food waste law
  films jam conspiracy; pantry ghosts; marmalade summer; brine prophet; vinegar queen
gardening
 roses
  shop pruning shears; thorn gloves; trellis panel; rose fertiliser; graft tape; bloom spray
  news blackspot outbreak; attar growers; hybrid patents; valentine imports; petal thieves
  films briar bride; perfumer; manor gardener; crimson hedge; bouquet murders; greenhouse affair
 vegetables
  shop raised bed kit; seed trays; tomato cage; soil tester; hand trowel; compost bin
  news allotment queues; drought rules; squash record; urban farms; blight warnings
  films pumpkin king; harvest pact; scarecrow; carrot rebellion; turnip saint; farmhand
 lawns
  shop reel mower; edge trimmer; leaf rake; grass spreader; hose reel; sprinkler head
  news turf industry; noise ordinance; clover movement; pesticide hearings; golf course closures
  films suburban feud; groundskeeper; mole war; picket fence; cul de sac; sunday neighbours
 houseplants
  shop ceramic planter; mist bottle; moss pole; grow lamp; potting mix; macrame hanger
  news monstera craze; indoor air research; succulent smuggling; orchid auction; fern collectors
  films jungle apartment; whispering ivy; vanilla hunter; plant whisperer; cactus girl
 ponds
  shop pond liner; fountain pump; lily basket; algae net; pebble mat; filter sponge
  news frog decline; wetland grants; newt survey; koi theft; stream restoration; dragonfly count
  films drowned statue; heron; marsh spirit; toad prince; boathouse; mirror lake
sports
 running
  shop trail shoes; hydration vest; pace watch; foam roller; reflective belt; compression socks
  news marathon entries; doping appeal; sprint final; park races; ultra records; pacemaker scandal
  films barefoot champion; long distance loner; finish line; relay sisters; night jogger; olympian
 cycling
  shop road helmet; chain lube; pannier bag; saddle cover; tyre lever; pedal cleats
  news bike lanes; peloton pileup; grand tour stage; commuter scheme; courier strike
  films messenger; yellow jersey; tandem lovers; hairpin bend; bicycle stealer; downhill gang
 swimming
  shop swim goggles; kick board; silicone cap; nose clip; pull buoy; chamois towel
  news lido reopening; butterfly medal; channel crossing; chlorine costs; open sea league
  films high diver; lighthouse swimmer; deep end; synchronised twins; shore patrol; tide runner
 climbing
  shop belay device; chalk bag; harness; carabiner; crash pad; dynamic rope
  news everest permits; bouldering boom; alpine rescue; glacier retreat; summit queue
  films north face; sherpa; avalanche; free soloist; icebound ridge; expedition widow
 football
  shop shin guards; goal net; match ball; corner flags; training bibs; studded boots
  news transfer window; penalty row; relegation battle; stadium vote; derby result
  films goalkeeper's fear; substitute; coach; terrace hooligans; golden winger; miracle team
travel
 beaches
  shop seaside parasol; snorkel set; sun hat; dry bag; sand mat; cooling tote
  news shark sightings; coastal erosion; resort bookings; jellyfish bloom; heatwave tourism
  films castaway; lagoon; surfer; honeymoon island; shipwreck; coral divers
 cities
  shop city guidebook; sling backpack; plug adapter; neck pillow; luggage tag; folding umbrella
  news hotel levies; rental limits; museum strikes; airport delays; skyline plans; passport backlog
  films roman stroll; parisian stranger; taxi night; metropolis; rooftop spies; concierge
 railways
  shop model locomotive; rail pass holder; conductor whistle; track set; timetable poster
  news high speed line; signal failure; freight corridor; ticket reform; tunnel opening
  films orient express; stationmaster; runaway engine; farewell at dawn; dining car
 camping
  shop dome tent; sleeping bag; gas stove; head torch; camp chair; mess kit
  news wildfire closures; bear encounters; van dweller rules; ranger cuts; stargazing reserve
  films cabin; campfire tales; lost hikers; scout; wilderness father; grizzly
 sailing
  shop buoyancy jacket; deck shoes; winch handle; marine rope; sextant; anchor chain
  news regatta results; harbour dues; yacht seizure; storm warnings; cargo diversion
  films captain; mutiny; ghost ship; smugglers bay; widow of the whaler; spinnaker swindle
music
 guitar
  shop guitar strings; fuzz pedal; tube amplifier; capo; plectrum pack; fretboard oil
  news festival lineup; rosewood treaty; reunion tour; riff lawsuit; luthiers guild
  films bluesman; crossroads deal; garage band; troubadour; outlaw picker; rockstar
 piano
  shop piano bench; metronome; sheet music stand; sustain pedal; key cover; digital keyboard
  news chopin competition; conservatory cuts; steinway auction; prodigy debut; recital tour
  films virtuoso; silent pianist; nocturne; sonata for two; teacher; ivory fingers
 drums
  shop drum throne; snare head; practice pad; cymbal stand; hickory sticks; bass beater
  news samba parade; rhythm therapy; percussion prize; carnival curfew; marching troupes
  films drummer; jazz cellar; thunder beat; drumline season; tempo; little bongo
 vinyl
  shop turntable; record sleeve; stylus cleaner; phono preamp; album crate; slip mat
  news pressing plants; royalty dispute; ranking overhaul; analogue comeback; label merger
  films disc jockey; lost tapes; disco inferno; radio pirates; groove; hit factory
 choir
  shop choir folder; pitch pipe; robe hanger; hymnal; throat lozenges; choral risers
  news cathedral voices; eisteddfod; carol service; anthem row; oratorio awards
  films cantor; boy soprano; requiem; monastery song; gospel road; chorus girls
technology
 phones
  shop phone case; screen protector; charging cable; power bank; selfie stick; car holder
  news handset sales; app store fees; battery recall; classroom ban; network outage
  films missed call; stalker; influencer; blocked number; answerphone; last ringtone
 programming
  shop mechanical keyboard; monitor arm; laptop stand; usb hub; rubber duck; wrist rest
  news developer layoffs; ransomware attack; chip export; compiler award; cloud bill
  films hacker; startup; zero day; code breaker; mainframe; password
 robots
  shop servo motor; robot vacuum; soldering iron; sensor kit; stepper driver; gripper arm
  news drone rules; humanoid trial; warehouse jobs; autonomous lorries; surgical machines
  films android; brass butler; uprising; sentient toaster; cyborg; automaton child
 astronomy
  shop telescope mount; star chart; eyepiece; red flashlight; planetarium lamp; solar filter
  news moon landing; asteroid flyby; satellite debris; probe data; eclipse crowds; launch scrubbed
  films astronaut; martian colony; black hole; cosmonaut's wife; first contact; orbit
 smarthome
  shop mesh router; door camera; smart plug; motion detector; thermostat; led strip
  news broadband rollout; privacy complaint; energy meters; hacked doorbells; spectrum auction
  films intruder; glass house; watcher; locked rooms; panic; remote
wellness
 yoga
  shop yoga mat; cork block; meditation cushion; stretch strap; incense holder; bolster
  news retreat fraud; posture study; studio closures; breathing method; stress leave
  films guru; ashram; silent valley; enlightenment; monk; lotus
 sleep
  shop weighted blanket; eye mask; memory pillow; earplugs; blackout curtain; mattress topper
  news clock change; night shift research; melatonin sales; nap policy; snoring clinic
  films sleepwalker; nightmare; dreamers; insomniac; lullaby; awake
 strength
  shop kettlebell; lifting belt; pull up bar; barbell collar; wrist wraps; weight bench
  news steroid seizure; membership prices; protein shortage; muscle ageing study; strongman title
  films boxer; wrestler; heavyweight; bodyguard; fighter's daughter; iron cage
 nutrition
  shop blender bottle; meal boxes; portion scale; salad spinner; juice press; vitamin organiser
  news obesity plan; sugar cap; supplements warning; vegan schools; fasting evidence
  films diet; hunger; feast; fat camp; thin line; banquet
 skincare
  shop face serum; clay mask; sunscreen lotion; jade roller; lip balm; cleansing pads
  news melanoma screening; cosmetics testing; counterfeit creams; dermatology queue; beauty inquiry
  films painted visage; plastic surgeon; mannequin; eternal bloom; portrait; vanity
home
 woodwork
  shop hand plane; chisel set; wood clamps; dovetail saw; sanding block; router bits
  news timber costs; apprenticeships; sawmill fire; ash dieback; carpenters wages
  films joiner; coffin maker; puppet; treehouse; lumberjack; cradle
 painting
  shop paint roller; masking tape; dust sheet; colour swatches; extension pole; primer tin
  news facade rules; mural contest; pigment shortage; listed buildings; graffiti cleanup
  films house painter; forger; red room; fresco; muse; white wall
 plumbing
  shop pipe wrench; basin tap; drain snake; shower hose; ptfe reel; stopcock
  news sewage spill; boiler subsidies; hard water map; frozen mains; fatberg removal
  films plumber; flood; sewer creature; drip; bathhouse; underground river
 lighting
  shop pendant lamp; dimmer switch; candle holder; fairy lights; desk lantern; bulb pack
  news outage drills; electricity cap; dark sky policy; halogen phase out; grid upgrade
  films gaslight; lamplighter; shadow; flicker; chandelier; long dusk
 furniture
  shop oak bookshelf; armchair; nesting tables; storage ottoman; drawer knobs; felt pads
  news flatpack profits; antiques fair; landlord rules; mortgage rates; showroom bankruptcy
  films rocking granny; wardrobe; estate sale; lodgers; mahogany study; empty nest
family
 newborns
  shop swaddle wrap; cot monitor; bottle warmer; nappy pail; bath seat; pacifier clip
  news baby numbers; formula recall; parental leave; vaccine uptake; delivery wards
  films foundling; changeling; night nurse; stork; three bachelors; first cry
 toys
  shop building bricks; plush rabbit; shape puzzle; marble run; doll pram; wooden blocks
  news choking notice; toymaker takeover; collectors bubble; playground budget; magnet ban
  films lead soldier; haunted rattle; carousel; puppeteer's son; clockwork bear; attic
 school
  shop pencil case; lunch tin; school satchel; spelling cards; glue sticks; exercise books
  news exam results; uniform costs; phonics scores; truancy fines; catchment redrawn
  films headmaster; detention; class reunion; new pupil; grammar queen; chalk
 teens
  shop gaming headset; hoodie; skate deck; locker shelf; diary planner; acne patches
  news social media age; drop in clubs; vaping figures; student debt; curfew debate
  films prom; truant; first kiss; bully; summer break; orchestra pit
 pregnancy
  shop bump pillow; belly band; nursing bra; folic tablets; birth ball; hospital bag
  news fertility funding; ultrasound delays; surrogacy law; egg freezing; doula training; ivf queue
  films expecting; nine months; shotgun bride; twins; secret heir; quickening
animals
 dogs
  shop dog lead; chew bone; kennel crate; puppy pads; slicker brush; treat pouch
  news breed ban; rescue shelters; guide training; rabies scare; crufts winner; leash rules dispute
  films stray; loyal hound; wolf; sled team; alley tramp; mongrel
 cats
  shop scratching post; litter tray; catnip toy; window perch; feather wand; cat flap
  news feline virus; microchip deadline; declawing vote; feral colonies; allergy vaccine
  films black panther; alley tom; nine lives; sphinx; kitten; witch's familiar
 horses
  shop riding helmet; saddle pad; hoof pick; halter rope; stirrup irons; hay net
  news derby favourite; equine flu; betting inquiry; stables eviction; mounted police
  films stallion; rodeo; cavalry; jockey; desert rider; foal
 birds
  shop bird feeder; birdhouse; binoculars; suet balls; field notebook; seed hopper
  news avian influenza; migration count; wind turbine ruling; pigeon racing; songbird trapping
  films falconer; raven; swan; caged canary; albatross; nightingale
 fish
  shop aquarium tank; fishing rod; tackle chest; gravel vacuum; bait hooks; landing net
  news cod quotas; salmon escape; trawler dispute; mercury levels; angling licence; reef bleaching
  films old fisherman; leviathan; mermaid; piranha; river bend; oyster diver
history
 antiquity
  shop roman coin replica; marble bust; papyrus print; amphora vase; mosaic tiles; laurel wreath
  news pompeii dig; sculpture return; tomb discovery; latin teaching; looted artefacts; pyramid scan
  films gladiator; pharaoh; trojan; centurion; oracle; cleopatra's slave
 medieval
  shop chainmail shirt; drinking horn; heraldic banner; wax seal; goblet; longbow
  news viking hoard; plague genome; castle tourism; manuscript theft; royal burial
  films crusader; knight; beak doctor; dragon; heretic; joust
 aviation
  shop biplane model; pilot jacket; propeller clock; flight log; goggles strap; altimeter gauge
  news airshow crash; concorde anniversary; black box search; museum hangar; aircrew memorial
  films flying ace; bomber; stewardess; red baron; hijack; squadron
 maps
  shop antique globe; brass compass; map frame; atlas; parchment paper; magnifier
  news border treaty; census release; toponym vote; surveyors find; arctic claims
  films explorer; treasure island; lost city; mapless sailor; silk road; terra incognita
 genealogy
  shop ancestry kit; photo album; family tree chart; archive folders; slide scanner; memory ledger
  news dna database; parish registers; adoption files; migration records; surname research
  films missing heir; forebears; matriarch; bloodline; old letters; dynasty
fashion
 shoes
  shop suede loafers; shoe trees; polish kit; leather laces; insoles; ankle boots
  news sneaker resale; cobbler revival; footwear tariffs; factory relocation; stiletto policy
  films scarlet slippers; last maker; glass heel; tap dancer; ballerina; cowboy
 jewellery
  shop drop earrings; silver bangle; ring sizer; necklace clasp; gem loupe; trinket dish
  news diamond sanctions; gold rally; tiara robbery; hallmark reform; lab grown stones
  films jewel thief; cursed ruby; engagement; pawnbroker; crown; stolen brilliant
 knitting
  shop knitting needles; merino yarn; crochet hook; stitch markers; darning egg; wool winder
  news shearing season; craft fair; guerrilla knitters; cashmere crisis; textile museum; jumper day
  films seamstress; spinster; unravelled; shepherd; crimson scarf; loom
 watches
  shop watch winder; nylon wristband; pocket timepiece; spring bar tool; bezel insert
  news swiss exports; horology prize; luxury slowdown; counterfeiters raid; customs seizure
  films watchmaker; endless tuesday; eleventh hour; midnight; countdown; pendulum
 vintage
  shop wool overcoat; tweed cap; silk blouse; corduroy trousers; hat box; brooch pin
  news charity shops; fast fashion bill; recycling target; catwalk week; second hand apps
  films flapper; dandy; matinee idol; tailor; masquerade; velvet
"""
